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
  if (!get_user(filter, argument)) return -EFAULT;
  if (const int result = msr_filter_.set(filter); result != 0) return result;
  // svm.c svm_recalc_msr_intercepts(): what is refused has to come out first.
  msr_intercepts_ = {};
  for (const std::uint32_t index : direct_msrs()) {
    if (!msr_filter_.allows(index, false)) msr_intercepts_.reads.push_back(index);
    if (!msr_filter_.allows(index, true)) msr_intercepts_.writes.push_back(index);
  }
  return 0;
}

}  // namespace sevisor::emulator
