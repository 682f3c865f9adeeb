#include "vmm/cli/host_choice.hpp"

#include <fmt/format.h>
#include <optional>
#include <spdlog/spdlog.h>
#include <utility>

#include "base/error.hpp"
#include "emulator/kvm/emulated_host.hpp"
#include "kvm/kernel_host.hpp"
#include "vmm/launch/host_ability.hpp"
#include "vmm/trace/tracing_host.hpp"

namespace sevisor::cli {

namespace {

// `known`: sessions are made for a platform with certificates, so it must be this machine's own.
std::unique_ptr<kvm::Host> make_emulated_host(bool known, kvm::Observer& observer, bool watch_memory) {
  emulator::EmulatedHostOptions options;
  options.observer = &observer;
  options.watch_memory = watch_memory;
  if (known) options.identity = emulator::load_platform_identity(emulator::platform_identity_folder());
  return emulator::make_emulated_host(options);
}

}  // namespace

void check_host_name(const std::string& host) {
  if (host != "auto" && host != "kernel" && host != "emulated") {
    throw Error(ExitCode::kBadUsage, fmt::format("read --host '{}'", host), "no such host",
                "Choose one of auto, kernel, emulated.");
  }
}

std::unique_ptr<kvm::Host> choose_host(const std::string& choice, bool known, kvm::Observer& observer, bool check) {
  if (choice == "emulated") return make_emulated_host(known, observer, check);
  auto kernel = kvm::make_kernel_host();
  const std::optional<std::string> reason = vmm::why_no_sev_es(*kernel);
  if (!reason && check) {
    throw Error(ExitCode::kBadUsage, "check the guest on this machine's kernel host", "silicon hides what it does",
                "Give --host emulated with --check.");
  }
  if (!reason) return vmm::make_tracing_host(std::move(kernel), observer);
  if (choice == "kernel") {
    throw Error(ExitCode::kHostCannot, "run an SEV-ES guest on this machine's kernel host", *reason,
                "'sevisor doctor' tells what to do about it; --host emulated runs the guest without protection.");
  }
  spdlog::warn("running on the emulated host, which protects nothing: no SEV-ES here ({})", *reason);
  return make_emulated_host(known, observer, check);
}

std::unique_ptr<kvm::Host> plain_host(const std::string& choice, kvm::Observer& observer) {
  if (choice == "emulated") return make_emulated_host(false, observer, false);
  auto kernel = kvm::make_kernel_host();
  const auto reason = vmm::why_no_kvm(*kernel);
  if (!reason) return vmm::make_tracing_host(std::move(kernel), observer);
  if (choice == "kernel") {
    throw Error(ExitCode::kHostCannot, "run a plain guest on this machine's kernel host", *reason,
                "'sevisor doctor' looks at /dev/kvm; --host emulated does without.");
  }
  spdlog::warn("running on the emulated host: no KVM here ({})", *reason);
  return make_emulated_host(false, observer, false);
}

}  // namespace sevisor::cli
