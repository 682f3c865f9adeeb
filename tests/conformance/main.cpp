// One suite over the KVM and SEV ABI for both hosts: --host kernel or --host emulated.
#define CATCH_CONFIG_RUNNER
#include <catch2/catch.hpp>
#include <cstdio>
#include <fmt/format.h>
#include <fstream>
#include <iostream>

#include "base/error.hpp"
#include "emulator/kvm/emulated_host.hpp"
#include "rig.hpp"
#include "vmm/kvm/kernel_host.hpp"

namespace sevisor::conformance {

namespace {
struct Choice {
  std::string host = "emulated";
  std::string notes;  // where note() writes to
};
Choice& choice() {
  static Choice chosen;
  return chosen;
}
constexpr int kSkipped = 77;
}  // namespace

std::unique_ptr<kvm::Host> make_host() {
  return choice().host == "kernel" ? kvm::make_kernel_host() : emulator::make_emulated_host({.slice = 1000});
}

void note(const std::string& what, std::uint64_t value) {
  if (choice().notes.empty()) return;
  std::ofstream(choice().notes, std::ios::app) << fmt::format("{} = {:#x}\n", what, value);
}

}  // namespace sevisor::conformance

int main(int argc, char** argv) {
  using namespace sevisor;
  Catch::Session session;
  conformance::Choice& chosen = conformance::choice();
  session.cli(session.cli() | Catch::clara::Opt(chosen.host, "kernel|emulated")["--host"]("the host to test") |
              Catch::clara::Opt(chosen.notes, "FILE")["--notes"]("where to write what hosts are compared by"));
  if (const int wrong = session.applyCommandLine(argc, argv); wrong != 0) return wrong;
  if (chosen.host != "kernel" && chosen.host != "emulated") {
    std::cerr << "--host is kernel or emulated\n";
    return 1;
  }
  try {
    const auto host = conformance::make_host();
    (void)kvm::Kvm::open(*host).create_vm();
  } catch (const Error& error) {
    std::cout << "SKIP: " << error.what() << '\n';
    return conformance::kSkipped;
  }
  return session.run();
}
