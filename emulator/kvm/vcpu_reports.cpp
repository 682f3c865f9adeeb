// What user space is told of a vCPU's local APIC: ends of its IOAPIC's interrupts, and accesses to the task priority.
// Linux arch/x86/kvm/x86.c, lapic.c.
#include <cerrno>

#include "emulator/irqchip/apic_registers.hpp"
#include "emulator/kvm/user_memory.hpp"
#include "emulator/kvm/vcpu.hpp"
#include "emulator/kvm/vm.hpp"

namespace sevisor::emulator {

int Vcpu::tpr_access_reporting(void* argument) {
  kvm_tpr_access_ctl control{};
  if (!get_user(control, argument)) return -EFAULT;
  if (control.flags != 0) return -EINVAL;
  report_tpr_ = control.enabled != 0;
  return put_user(argument, control) ? 0 : -EFAULT;
}

// Where KVM shows the guest its TPR (KVM_CAP_VAPIC). There is no such thing here: any address is one that cannot be
// used.
int Vcpu::set_vapic_addr(void* argument) {
  if (vm_.irqchip() == nullptr) return -EINVAL;
  kvm_vapic_addr address{};
  if (!get_user(address, argument)) return -EFAULT;
  return address.vapic_addr == 0 ? 0 : -EINVAL;
}

void Vcpu::note_tpr_access(const ghcb::MmioAccess& access) {
  const Irqchip* chip = vm_.irqchip();
  if (report_tpr_ && access.gpa == chip->apic(index_).mmio_base() + apic::kTpr) tpr_access_ = access.write;
}

std::optional<int> Vcpu::report_apic() {
  kvm_run& run = shared();
  if (const auto vector = vm_.irqchip()->take_ended(index_)) {
    run.exit_reason = KVM_EXIT_IOAPIC_EOI;
    run.eoi.vector = *vector;
    return 0;
  }
  if (const auto write = std::exchange(tpr_access_, std::nullopt)) {
    run.exit_reason = KVM_EXIT_TPR_ACCESS;
    run.tpr_access.rip = protected_ ? 0 : cpu_->rip();
    run.tpr_access.is_write = *write ? 1 : 0;
    return 0;
  }
  return std::nullopt;
}

}  // namespace sevisor::emulator
