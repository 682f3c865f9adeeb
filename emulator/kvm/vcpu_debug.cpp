// KVM_SET_GUEST_DEBUG: a debugger in user space steps an ordinary guest or sets breakpoints of its own. Linux
// arch/x86/kvm/x86.c kvm_arch_vcpu_ioctl_set_guest_debug(), svm/svm.c db_interception(), bp_interception().
#include <algorithm>
#include <cerrno>

#include "emulator/kvm/user_memory.hpp"
#include "emulator/kvm/vcpu.hpp"
#include "emulator/kvm/vm.hpp"
#include "ghcb/event.hpp"

namespace sevisor::emulator {

namespace {
constexpr std::uint8_t kVectorBp = 3;
constexpr std::uint64_t kDr6ActiveLow = 0xffff0ff0;
constexpr std::uint64_t kDr7Fixed = 0x400;
constexpr unsigned kDr7 = 7;
constexpr std::uint64_t kDr6SingleStep = 1 << 14;
}  // namespace

int Vcpu::set_guest_debug(void* argument) {
  kvm_guest_debug debug{};
  if (!get_user(debug, argument)) return -EFAULT;
  if (protected_) return -EINVAL;
  if ((debug.control & (KVM_GUESTDBG_INJECT_DB | KVM_GUESTDBG_INJECT_BP)) != 0) {
    if (reinjection_ != 0) return -EBUSY;
    const bool db = (debug.control & KVM_GUESTDBG_INJECT_DB) != 0;
    inject_exception(db ? ghcb::kVectorDb : kVectorBp, std::nullopt);
  }
  debugged_ = (debug.control & KVM_GUESTDBG_ENABLE) != 0;
  const auto wants = [&](std::uint32_t what) { return debugged_ && (debug.control & what) != 0; };
  debugger_ = {.steps = wants(KVM_GUESTDBG_SINGLESTEP),
               .takes_int3 = wants(KVM_GUESTDBG_USE_SW_BP),
               .has_breakpoints = wants(KVM_GUESTDBG_USE_HW_BP)};
  if (debugger_.has_breakpoints) {
    std::copy_n(debug.arch.debugreg, debugger_.addresses.size(), debugger_.addresses.begin());
    debugger_.dr7 = debug.arch.debugreg[kDr7];
  }
  return 0;
}

Vcpu::Handled Vcpu::report_debug(std::uint8_t vector, std::uint64_t dr6) {
  kvm_run& run = shared();
  run.exit_reason = KVM_EXIT_DEBUG;
  run.debug.arch = {};
  run.debug.arch.exception = vector;
  run.debug.arch.pc = cpu_->linear_rip();
  run.debug.arch.dr6 = dr6 | kDr6ActiveLow;
  run.debug.arch.dr7 = debugger_.has_breakpoints ? debugger_.dr7 : kDr7Fixed;
  return {.result = 0};
}

std::optional<int> Vcpu::report_step(const CpuExit& exit) {
  constexpr ghcb::ExitCode kBetween[] = {ghcb::kExitIntr, ghcb::kExitVintr, ghcb::kExitNmi, ghcb::kExitIret};
  if (!debugger_.steps || !ordinary() || reinjection_ != 0) return std::nullopt;
  if (std::ranges::find(kBetween, exit.code) != std::end(kBetween)) return std::nullopt;
  return report_debug(ghcb::kVectorDb, kDr6SingleStep).result;
}

}  // namespace sevisor::emulator
