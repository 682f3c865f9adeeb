// ioctls that set up and show a vCPU's registers. Linux arch/x86/kvm/x86.c kvm_arch_vcpu_ioctl(). After
// LAUNCH_UPDATE_VMSA they are the guest's: what KVM then accepts without effect, and what it shows, is that of a VM of
// type 0.
#include <cerrno>

#include "emulator/kvm/capabilities.hpp"
#include "emulator/kvm/cpuid_table.hpp"
#include "emulator/kvm/msr_entries.hpp"
#include "emulator/kvm/user_memory.hpp"
#include "emulator/kvm/vcpu.hpp"
#include "emulator/kvm/vm.hpp"
#include "ghcb/event.hpp"

namespace sevisor::emulator {

int Vcpu::set_cpuid2(void* argument) {
  kvm_cpuid2 header{};
  if (!get_user(header, argument)) return -EFAULT;
  if (header.nent > kMaxCpuidEntries) return -E2BIG;
  std::vector<kvm_cpuid_entry2> entries(header.nent);
  const auto* first = static_cast<const std::byte*>(argument) + offsetof(kvm_cpuid2, entries);
  if (!copy_from_user(std::as_writable_bytes(std::span(entries)), first)) return -EFAULT;
  // Leaf 0x80000008: KVM knows virtual addresses of 48 and 57 bits, or none said.
  if (const auto* sizes = find_cpuid(entries, 0x80000008, 0)) {
    const std::uint32_t virtual_bits = sizes->eax >> 8 & 0xff;
    if (virtual_bits != 48 && virtual_bits != 57 && virtual_bits != 0) return -EINVAL;
  }
  // After the first KVM_RUN the table may only be set again, not changed.
  if (cpu_ && (entries.size() != cpuid_.size() ||
               std::memcmp(entries.data(), cpuid_.data(), entries.size() * sizeof entries[0]) != 0)) {
    return -EINVAL;
  }
  cpuid_ = std::move(entries);
  return 0;
}

int Vcpu::get_cpuid2(void* argument) {
  kvm_cpuid2 header{};
  if (!get_user(header, argument)) return -EFAULT;
  if (header.nent < cpuid_.size()) return -E2BIG;
  header.nent = static_cast<std::uint32_t>(cpuid_.size());
  auto* first = static_cast<std::byte*>(argument) + offsetof(kvm_cpuid2, entries);
  return copy_to_user(first, std::as_bytes(std::span(cpuid_))) && put_user(argument, header) ? 0 : -EFAULT;
}

int Vcpu::get_regs(void* argument) {
  return put_user(argument, protected_ ? stale_regs_ : registers_.regs()) ? 0 : -EFAULT;
}

int Vcpu::set_regs(void* argument) {
  kvm_regs regs{};
  if (!get_user(regs, argument)) return -EFAULT;
  apply_regs(regs);
  return 0;
}

void Vcpu::apply_regs(const kvm_regs& regs) {
  if (protected_) {
    stale_regs_ = regs;
  } else {
    registers_.set_regs(regs);
  }
}

int Vcpu::get_sregs(void* argument) {
  kvm_sregs sregs{};
  if (!protected_) {
    registers_.get_sregs(sregs);
  } else {
    sregs.cr0 = cr0_;
    sregs.cr4 = cr4_;
    sregs.efer = efer_;
  }
  sregs.cr8 = cr8_;
  if (const Irqchip* chip = vm_.irqchip()) {
    sregs.cr8 = chip->cr8(index_);
    sregs.apic_base = chip->apic(index_).apic_base();
  }
  if (const ghcb::Event event = ghcb::decode_event(reinjection_);
      event.valid && event.type == ghcb::EventType::kExternal && ordinary()) {
    sregs.interrupt_bitmap[event.vector / 64] |= std::uint64_t{1} << event.vector % 64;
  }
  return put_user(argument, sregs) ? 0 : -EFAULT;
}

int Vcpu::set_sregs(void* argument) {
  kvm_sregs sregs{};
  return get_user(sregs, argument) ? apply_sregs(sregs) : -EFAULT;
}

int Vcpu::apply_sregs(const kvm_sregs& sregs) {
  Irqchip* chip = vm_.irqchip();
  RegisterState checked = registers_;
  if (!checked.set_sregs(sregs, guest_c_bit())) return -EINVAL;
  if (chip != nullptr && !chip->write_msr(index_, kMsrApicBase, sregs.apic_base, true)) return -EINVAL;
  if (protected_) return 0;
  registers_ = checked;
  cr8_ = static_cast<unsigned>(sregs.cr8 & 0xf);
  for (unsigned vector = 0; vector < KVM_NR_INTERRUPTS && ordinary(); ++vector) {
    if ((sregs.interrupt_bitmap[vector / 64] >> vector % 64 & 1) == 0) continue;
    reinjection_ =
        ghcb::encode(ghcb::Event{.vector = static_cast<std::uint8_t>(vector), .type = ghcb::EventType::kExternal});
    break;
  }
  if (chip != nullptr) chip->set_cr8(index_, static_cast<unsigned>(sregs.cr8 & 0xf));
  return 0;
}

std::optional<std::uint64_t> Vcpu::host_read_msr(std::uint32_t index) {
  if (RegisterState::owns_msr(index)) {
    if (hidden()) return std::nullopt;
    return protected_ ? 0 : registers_.read_msr(index);
  }
  if (Irqchip::owns_msr(index)) {
    return vm_.irqchip() != nullptr ? vm_.irqchip()->read_msr(index_, index) : std::nullopt;
  }
  return msrs_.read(index, vm_.clock().now);
}

bool Vcpu::host_write_msr(std::uint32_t index, std::uint64_t value) {
  if (RegisterState::owns_msr(index)) return !hidden() && (protected_ || registers_.write_msr(index, value));
  if (Irqchip::owns_msr(index)) return vm_.irqchip() != nullptr && vm_.irqchip()->write_msr(index_, index, value, true);
  return msrs_.write(index, value);
}

int Vcpu::get_msrs(void* argument) {
  return read_msr_entries(argument, [this](std::uint32_t index) { return host_read_msr(index); });
}

int Vcpu::set_msrs(void* argument) {
  kvm_msrs header{};
  if (!get_user(header, argument)) return -EFAULT;
  if (header.nmsrs >= kMaxMsrEntries) return -E2BIG;
  std::vector<kvm_msr_entry> entries(header.nmsrs);
  const auto* first = static_cast<const std::byte*>(argument) + offsetof(kvm_msrs, entries);
  if (!copy_from_user(std::as_writable_bytes(std::span(entries)), first)) return -EFAULT;
  int done = 0;
  for (const kvm_msr_entry& entry : entries) {
    if (!host_write_msr(entry.index, entry.data)) break;
    ++done;
  }
  return done;
}

// A protected vCPU of a VM of type 0: shown as zeros, set without effect.
int Vcpu::get_fpu(void* argument) { return put_user(argument, protected_ ? kvm_fpu{} : fpu_.fpu()) ? 0 : -EFAULT; }
int Vcpu::set_fpu(void* argument) {
  kvm_fpu fpu{};
  if (!get_user(fpu, argument)) return -EFAULT;
  if (!protected_) fpu_.set_fpu(fpu);
  return 0;
}
int Vcpu::get_xsave(void* argument) {
  const kvm_xsave none{};
  return copy_to_user(argument, protected_ ? std::as_bytes(std::span(&none, 1)) : fpu_.xsave()) ? 0 : -EFAULT;
}
int Vcpu::set_xsave(void* argument) {
  std::array<std::byte, kXsaveBytes> area;
  if (!copy_from_user(area, argument)) return -EFAULT;
  return protected_ || fpu_.set_xsave(area) ? 0 : -EINVAL;
}

int Vcpu::get_xcrs(void* argument) {
  kvm_xcrs xcrs{};
  xcrs.nr_xcrs = 1;
  xcrs.xcrs[0].value = registers_.xcr0();
  return put_user(argument, xcrs) ? 0 : -EFAULT;
}
int Vcpu::set_xcrs(void* argument) {
  kvm_xcrs xcrs{};
  if (!get_user(xcrs, argument)) return -EFAULT;
  if (xcrs.nr_xcrs > KVM_MAX_XCRS || xcrs.flags != 0) return -EINVAL;
  for (std::uint32_t i = 0; i < xcrs.nr_xcrs; ++i) {
    if (xcrs.xcrs[i].xcr == 0) return registers_.set_xcr0(xcrs.xcrs[i].value) ? 0 : -EINVAL;
  }
  return 0;
}

int Vcpu::get_debugregs(void* argument) {
  kvm_debugregs registers{};
  registers_.get_debugregs(registers);
  return put_user(argument, registers) ? 0 : -EFAULT;
}
int Vcpu::set_debugregs(void* argument) {
  kvm_debugregs registers{};
  if (!get_user(registers, argument)) return -EFAULT;
  return registers_.set_debugregs(registers) ? 0 : -EINVAL;
}

int Vcpu::get_tsc_khz(void*) { return kTscKhz; }

}  // namespace sevisor::emulator
