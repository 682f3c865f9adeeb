#include "vmm/cli/host_choice.hpp"

#include <fmt/format.h>
#include <optional>
#include <spdlog/spdlog.h>
#include <string_view>
#include <utility>
#include <vector>

#include "base/error.hpp"
#include "emulator/kvm/emulated_host.hpp"
#include "kvm/kernel_host.hpp"
#include "vmm/launch/host_ability.hpp"
#include "vmm/trace/tracing_host.hpp"

namespace sevisor::cli {

namespace {

std::unique_ptr<kvm::Host> make_emulated_host(const HostWishes& wishes, kvm::Observer& observer) {
  emulator::EmulatedHostOptions options;
  options.observer = &observer;
  options.watch_memory = wishes.check;
  if (wishes.personality != nullptr) options.personality = wishes.personality;
  if (wishes.known) options.identity = emulator::load_platform_identity(emulator::platform_identity_folder());
  return emulator::make_emulated_host(options);
}

void refuse_kernel_host(const HostWishes& wishes) {
  if (wishes.check) {
    throw Error(ExitCode::kBadUsage, "check the guest on this machine's kernel host", "silicon hides what it does",
                "Give --host emulated with --check.");
  }
  if (wishes.personality != nullptr) {
    throw Error(ExitCode::kBadUsage, "use --kvm on this machine's kernel host", "its KVM is what the machine runs",
                "Give --host emulated with --kvm.");
  }
}

}  // namespace

void check_host_name(const std::string& host) {
  if (host != "auto" && host != "kernel" && host != "emulated") {
    throw Error(ExitCode::kBadUsage, fmt::format("read --host '{}'", host), "no such host",
                "Choose one of auto, kernel, emulated.");
  }
}

const emulator::Personality* parse_personality(const std::string& kernel) {
  if (kernel.empty()) return nullptr;
  const emulator::Personality* found = emulator::find_personality(kernel);
  if (found != nullptr) return found;
  std::vector<std::string_view> names;
  for (const emulator::Personality& personality : emulator::personalities()) names.push_back(personality.kernel);
  throw Error(ExitCode::kBadUsage, fmt::format("read --kvm '{}'", kernel), "no such kernel",
              fmt::format("Choose one of {}.", fmt::join(names, ", ")));
}

std::unique_ptr<kvm::Host> choose_host(const std::string& choice, const HostWishes& wishes, kvm::Observer& observer) {
  if (choice == "emulated") return make_emulated_host(wishes, observer);
  auto kernel = kvm::make_kernel_host();
  const std::optional<std::string> reason = vmm::why_no_sev_es(*kernel);
  if (!reason) refuse_kernel_host(wishes);
  if (!reason) return vmm::make_tracing_host(std::move(kernel), observer);
  if (choice == "kernel") {
    throw Error(ExitCode::kHostCannot, "run an SEV-ES guest on this machine's kernel host", *reason,
                "'sevisor doctor' tells what to do about it; --host emulated runs the guest without protection.");
  }
  spdlog::warn("running on the emulated host, which protects nothing: no SEV-ES here ({})", *reason);
  return make_emulated_host(wishes, observer);
}

std::unique_ptr<kvm::Host> plain_host(const std::string& choice, const HostWishes& wishes, kvm::Observer& observer) {
  if (choice == "emulated") return make_emulated_host(wishes, observer);
  auto kernel = kvm::make_kernel_host();
  const auto reason = vmm::why_no_kvm(*kernel);
  if (!reason) refuse_kernel_host(wishes);
  if (!reason) return vmm::make_tracing_host(std::move(kernel), observer);
  if (choice == "kernel") {
    throw Error(ExitCode::kHostCannot, "run a plain guest on this machine's kernel host", *reason,
                "'sevisor doctor' looks at /dev/kvm; --host emulated does without.");
  }
  spdlog::warn("running on the emulated host: no KVM here ({})", *reason);
  return make_emulated_host(wishes, observer);
}

}  // namespace sevisor::cli
