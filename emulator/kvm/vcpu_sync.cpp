// Registers that are handed over in kvm_run (KVM_CAP_SYNC_REGS), and KVM_GET_SREGS2, KVM_SET_SREGS2. Linux
// arch/x86/kvm/x86.c sync_regs(), store_regs(), __get_sregs2(), __set_sregs2().
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <span>
#include <utility>

#include "base/bytes.hpp"
#include "emulator/cpu/state/registers.hpp"
#include "emulator/kvm/capabilities.hpp"
#include "emulator/kvm/user_memory.hpp"
#include "emulator/kvm/vcpu.hpp"
#include "emulator/kvm/vm.hpp"

namespace sevisor::emulator {

namespace {
// The two structs begin alike: segments, descriptor tables, control registers, EFER and APIC base.
constexpr std::size_t kCommonSregs = offsetof(kvm_sregs2, flags);
static_assert(offsetof(kvm_sregs, interrupt_bitmap) == kCommonSregs &&
              offsetof(kvm_sregs, cr8) == offsetof(kvm_sregs2, cr8));
}  // namespace

int Vcpu::get_sregs2(void* argument) {
  kvm_sregs sregs{};
  if (const int result = get_sregs(&sregs); result != 0) return result;
  kvm_sregs2 all{};
  std::memcpy(&all, &sregs, kCommonSregs);
  const bool pae = (sregs.cr0 & kCr0Pg) != 0 && (sregs.cr4 & kCr4Pae) != 0 && (sregs.efer & kEferLma) == 0;
  if (pae && ordinary()) {
    // This processor looks at the table at each walk.
    constexpr std::uint64_t kTable = 0xffff'ffe0;
    if (vm_.memory().read_shared(Gpa(sregs.cr3 & kTable), std::as_writable_bytes(std::span(all.pdptrs)))) {
      all.flags = KVM_SREGS2_FLAGS_PDPTRS_VALID;
    }
  }
  return put_user(argument, all) ? 0 : -EFAULT;
}

int Vcpu::set_sregs2(void* argument) {
  kvm_sregs2 all{};
  if (!get_user(all, argument)) return -EFAULT;
  if ((all.flags & ~std::uint64_t{KVM_SREGS2_FLAGS_PDPTRS_VALID}) != 0) return -EINVAL;
  if (all.flags != 0 &&
      (protected_ || (all.cr0 & kCr0Pg) == 0 || (all.cr4 & kCr4Pae) == 0 || (all.efer & kEferLma) != 0)) {
    return -EINVAL;
  }
  kvm_sregs sregs{};
  std::memcpy(&sregs, &all, kCommonSregs);
  return apply_sregs(sregs);
}

bool Vcpu::sync_fields_valid() const {
  const std::uint64_t known = vm_.has_protected_state() ? 0 : kSyncRegs;
  return ((shared().kvm_valid_regs | shared().kvm_dirty_regs) & ~known) == 0;
}

// What user space has changed there. A negative errno, or 0.
int Vcpu::take_synced() {
  kvm_run& run = shared();
  const std::uint64_t dirty = std::exchange(run.kvm_dirty_regs, 0);
  if (dirty == 0) return 0;
  if (ordinary()) take_registers(true);
  // Copied once: user space may go on writing.
  const kvm_sync_regs synced = run.s.regs;
  if ((dirty & KVM_SYNC_X86_REGS) != 0) apply_regs(synced.regs);
  if ((dirty & KVM_SYNC_X86_SREGS) != 0 && apply_sregs(synced.sregs) != 0) return -EINVAL;
  if ((dirty & KVM_SYNC_X86_EVENTS) != 0 && apply_events(synced.events) != 0) return -EINVAL;
  return 0;
}

void Vcpu::give_synced() {
  kvm_run& run = shared();
  const std::uint64_t wanted = run.kvm_valid_regs;
  if (wanted == 0 || hidden()) return;
  if (ordinary()) take_registers(false);
  if ((wanted & KVM_SYNC_X86_REGS) != 0) (void)get_regs(&run.s.regs.regs);
  if ((wanted & KVM_SYNC_X86_SREGS) != 0) (void)get_sregs(&run.s.regs.sregs);
  if ((wanted & KVM_SYNC_X86_EVENTS) != 0) (void)get_vcpu_events(&run.s.regs.events);
}

}  // namespace sevisor::emulator
