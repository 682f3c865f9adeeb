// One suite over the KVM and SEV ABI for both hosts: --host kernel or --host emulated, --part plain or sev.
#define CATCH_CONFIG_RUNNER
#include <catch2/catch.hpp>
#include <fmt/format.h>
#include <fstream>
#include <iostream>

#include "base/error.hpp"
#include "emulator/kvm/emulated_host.hpp"
#include "kvm/kernel_host.hpp"
#include "rig.hpp"

namespace sevisor::conformance {

namespace {
struct Choice {
  std::string host = "emulated";
  std::string part = "plain";
  std::string kernel{emulator::newest_personality().kernel};  // of the emulated host
  std::string notes;                                          // where note() writes to
};
Choice& choice() {
  static Choice chosen;
  return chosen;
}
constexpr int kSkipped = 77;

// Why this part cannot run on this host; empty if it can.
std::string why_not(const Choice& chosen) {
  try {
    const auto host = make_host();
    const kvm::Vm vm = kvm::Kvm::open(*host).create_vm();
    if (chosen.part == "sev" && !vm.can_encrypt()) return "this host has no SEV";
    if (chosen.part == "sev") (void)kvm::SevDevice::open(*host);
  } catch (const Error& error) {
    return error.what();
  }
  return {};
}
}  // namespace

std::unique_ptr<kvm::Host> make_host() {
  return choice().host == "kernel" ? kvm::make_kernel_host()
                                   : emulator::make_emulated_host(
                                         {.slice = 1000, .personality = emulator::find_personality(choice().kernel)});
}

void note(const std::string& what, std::uint64_t value) {
  if (choice().notes.empty()) return;
  std::ofstream(choice().notes, std::ios::app) << fmt::format("{} = {:#x}\n", what, value);
}

}  // namespace sevisor::conformance

int main(int argc, char** argv) {
  using namespace sevisor::conformance;
  Catch::Session session;
  Choice& chosen = choice();
  session.cli(session.cli() | Catch::clara::Opt(chosen.host, "kernel|emulated")["--host"]("the host to test") |
              Catch::clara::Opt(chosen.kernel, "6.1|6.12|7.2")["--kvm"]("whose KVM the emulated host is") |
              Catch::clara::Opt(chosen.part, "plain|sev")["--part"]("guests without SEV, or with it") |
              Catch::clara::Opt(chosen.notes, "FILE")["--notes"]("where to write what hosts are compared by"));
  if (const int wrong = session.applyCommandLine(argc, argv); wrong != 0) return wrong;
  if (sevisor::emulator::find_personality(chosen.kernel) == nullptr) {
    std::cerr << "--kvm names no kernel that the emulated host can be\n";
    return 1;
  }
  if ((chosen.host != "kernel" && chosen.host != "emulated") || (chosen.part != "plain" && chosen.part != "sev")) {
    std::cerr << "--host is kernel or emulated, --part is plain or sev\n";
    return 1;
  }
  if (const std::string reason = why_not(chosen); !reason.empty()) {
    std::cout << "SKIP: " << reason << '\n';
    return kSkipped;
  }
  if (session.configData().testsOrTags.empty()) {
    session.configData().testsOrTags.emplace_back(chosen.part == "sev" ? "[sev]" : "~[sev]");
  }
  return session.run();
}
