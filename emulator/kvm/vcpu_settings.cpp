// ioctls that say how KVM is to treat a vCPU. Linux arch/x86/kvm/x86.c kvm_arch_vcpu_ioctl(), virt/kvm/kvm_main.c.
#include <cerrno>
#include <csignal>

#include "emulator/kvm/capabilities.hpp"
#include "emulator/kvm/user_memory.hpp"
#include "emulator/kvm/vcpu.hpp"
#include "emulator/kvm/vm.hpp"

namespace sevisor::emulator {

// Without scaling, a rate that the hardware does not have is refused (below it) or caught up with in software (above),
// which the virtual clock has no need of.
int Vcpu::set_tsc_khz(void* argument) {
  return tsc_rate_possible(reinterpret_cast<std::uintptr_t>(argument)) ? 0 : -EINVAL;
}

// For the guest's kvmclock, which is not offered.
int Vcpu::kvmclock_ctrl(void*) { return -EINVAL; }

int Vcpu::setup_mce(void* argument) {
  std::uint64_t capability = 0;
  if (!get_user(capability, argument)) return -EFAULT;
  return msrs_.set_machine_check(capability) ? 0 : -EINVAL;
}

int Vcpu::set_signal_mask(void* argument) {
  if (argument == nullptr) {
    signal_mask_.reset();
    return 0;
  }
  kvm_signal_mask header{};
  if (!get_user(header, argument)) return -EFAULT;
  std::uint64_t signals = 0;  // the kernel's sigset_t: signal 1 is bit 0
  if (header.len != sizeof signals) return -EINVAL;
  const auto* set = static_cast<const std::byte*>(argument) + offsetof(kvm_signal_mask, sigset);
  if (!get_user(signals, set)) return -EFAULT;
  sigset_t& mask = signal_mask_.emplace();
  sigemptyset(&mask);
  for (int signal = 1; signal <= 64; ++signal) {
    if ((signals >> (signal - 1) & 1) != 0) sigaddset(&mask, signal);
  }
  return 0;
}

}  // namespace sevisor::emulator
