// What a VM asks of user space that KVM could answer itself: hypercalls and refused MSRs. Linux arch/x86/kvm/x86.c.
#include <cerrno>

#include "emulator/kvm/capabilities.hpp"
#include "emulator/kvm/user_memory.hpp"
#include "emulator/kvm/vm.hpp"

namespace sevisor::emulator {

int Vm::set_hypercall_exits(std::uint64_t hypercalls) {
  if ((hypercalls & ~std::uint64_t{kExitHypercalls}) != 0) return -EINVAL;
  hypercall_exits_ = hypercalls;
  return 0;
}

int Vm::set_msr_exits(std::uint64_t reasons) {
  constexpr std::uint64_t kReasons =
      KVM_MSR_EXIT_REASON_INVAL | KVM_MSR_EXIT_REASON_UNKNOWN | KVM_MSR_EXIT_REASON_FILTER;
  if ((reasons & ~kReasons) != 0) return -EINVAL;
  msr_exits_ = reasons;
  return 0;
}

int Vm::set_msr_filter(void* argument) {
  kvm_msr_filter filter{};
  return get_user(filter, argument) ? msr_filter_.set(filter) : -EFAULT;
}

}  // namespace sevisor::emulator
