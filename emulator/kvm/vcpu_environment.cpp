// What the GHCB service sees of its vCPU and VM.
#include <algorithm>
#include <linux/kvm_para.h>

#include "base/bytes.hpp"
#include "emulator/cpu/state/registers.hpp"
#include "emulator/kvm/cpuid_table.hpp"
#include "emulator/kvm/vcpu.hpp"
#include "emulator/kvm/vm.hpp"
#include "ghcb/event.hpp"

namespace sevisor::emulator {

namespace {
// RAX of a hypercall that KVM does not know, whose arguments are no good, or from outside ring 0.
constexpr std::uint64_t kHypercallUnknown = static_cast<std::uint64_t>(-KVM_ENOSYS);
constexpr std::uint64_t kHypercallInvalid = static_cast<std::uint64_t>(-KVM_EINVAL);
constexpr std::uint64_t kHypercallForbidden = static_cast<std::uint64_t>(-KVM_EPERM);
}  // namespace

bool Vcpu::read_shared(Gpa gpa, std::span<std::byte> out) { return vm_.memory().read_shared(gpa, out); }
bool Vcpu::write_shared(Gpa gpa, std::span<const std::byte> in) { return vm_.memory().write_shared(gpa, in); }

std::uint64_t Vcpu::ghcb_msr() { return cpu_->ghcb_msr(); }
void Vcpu::set_ghcb_msr(std::uint64_t value) { cpu_->set_ghcb_msr(value); }

ghcb::CpuidValues Vcpu::cpuid(std::uint32_t leaf, std::uint32_t sub_leaf, std::optional<std::uint64_t> xcr0) {
  if (xcr0) guest_xcr0_ = *xcr0;
  constexpr std::uint64_t kApicEnabled = 1 << 11;
  const Irqchip* chip = vm_.irqchip();
  const bool apic = chip == nullptr || (chip->apic(index_).apic_base() & kApicEnabled) != 0;
  return answer_cpuid(cpuid_, leaf, sub_leaf,
                      {.osxsave = (cr4_ & kCr4Osxsave) != 0, .apic = apic, .xcr0 = guest_xcr0_});
}

// By the filter. Notes the reason that a refusal of the access, here or later, would have.
bool Vcpu::msr_allowed(std::uint32_t index, bool write) {
  if (!vm_.msr_filter().allows(index, write)) {
    msr_refusal_ = KVM_MSR_EXIT_REASON_FILTER;
    return false;
  }
  const bool known = Irqchip::owns_msr(index) || MsrStore::knows(index);
  msr_refusal_ = known ? KVM_MSR_EXIT_REASON_INVAL : KVM_MSR_EXIT_REASON_UNKNOWN;
  return true;
}

std::optional<std::uint64_t> Vcpu::read_msr(std::uint32_t index) {
  if (!msr_allowed(index, false)) return std::nullopt;
  if (Irqchip::owns_msr(index)) {
    return vm_.irqchip() != nullptr ? vm_.irqchip()->read_msr(index_, index) : std::nullopt;
  }
  return msrs_.read(index, vm_.clock().now);
}

bool Vcpu::write_msr(std::uint32_t index, std::uint64_t value) {
  if (!msr_allowed(index, true)) return false;
  if (Irqchip::owns_msr(index)) return vm_.irqchip() != nullptr && vm_.irqchip()->write_msr(index_, index, value);
  return msrs_.write(index, value);
}

bool Vcpu::refused_msr_exits() { return (vm_.msr_exits() & msr_refusal_) != 0; }

// What every KVM answers, and what user space may be asked: Linux arch/x86/kvm/x86.c ____kvm_emulate_hypercall().
std::uint64_t Vcpu::hypercall(const ghcb::Hypercall& call) {
  if (call.cpl != 0) return kHypercallForbidden;
  if (call.rax == KVM_HC_VAPIC_POLL_IRQ) return 0;
  return call.rax == KVM_HC_MAP_GPA_RANGE && vm_.hypercall_exits() != 0 ? kHypercallInvalid : kHypercallUnknown;
}

bool Vcpu::hypercall_exits(const ghcb::Hypercall& call) {
  if (call.cpl != 0 || call.rax != KVM_HC_MAP_GPA_RANGE || vm_.hypercall_exits() == 0) return false;
  const std::uint64_t first = call.rbx / kPageSize;
  return call.rbx % kPageSize == 0 && call.rcx != 0 && first + call.rcx > first;
}

bool Vcpu::port(const ghcb::PortAccess& access) {
  return chip_port(access) || (!access.in && write_port_device(access));
}

// Element by element, as KVM does. When the first one is no device's, user space has them all; later ones are lost.
bool Vcpu::write_port_device(const ghcb::PortAccess& access) {
  for (std::size_t done = 0; done < access.data.size(); done += access.size) {
    if (!vm_.write_device(IoBus::kPort, access.port, access.data.subspan(done, access.size))) return done != 0;
  }
  return true;
}

bool Vcpu::chip_port(const ghcb::PortAccess& access) {
  Irqchip* chip = vm_.irqchip();
  if (chip == nullptr) return false;
  // The first byte's port decides whose access it is; a wider one goes to the ports that follow, absent ones read as
  // ones.
  std::uint8_t probe = 0;
  for (std::size_t i = 0; i < access.data.size(); ++i) {
    const auto number = static_cast<std::uint16_t>(access.port + i % access.size);
    if (access.in) {
      const bool mine = chip->read_port(number, probe);
      if (i == 0 && !mine) return false;
      access.data[i] = mine ? std::byte{probe} : std::byte{0xff};
    } else {
      const bool mine = chip->write_port(number, static_cast<std::uint8_t>(access.data[i]));
      if (i == 0 && !mine) return false;
    }
  }
  return true;
}

bool Vcpu::mmio(const ghcb::MmioAccess& access) {
  Irqchip* chip = vm_.irqchip();
  if (chip != nullptr && (access.write ? chip->write_mmio(index_, access.gpa, access.data)
                                       : chip->read_mmio(index_, access.gpa, access.data))) {
    note_tpr_access(access);
    return true;
  }
  return access.write && vm_.write_device(IoBus::kMmio, access.gpa.value, access.data);
}

void Vcpu::inject_exception(std::uint8_t vector, std::optional<std::uint32_t> error_code) {
  reinjection_ = ghcb::encode(ghcb::Event{.vector = vector,
                                          .type = ghcb::EventType::kException,
                                          .has_error_code = error_code.has_value(),
                                          .error_code = error_code.value_or(0)});
}

void Vcpu::nmi_complete() { nmi_masked_ = false; }
std::uint64_t Vcpu::ap_jump_table() { return vm_.ap_jump_table(); }
void Vcpu::set_ap_jump_table(std::uint64_t gpa) { vm_.set_ap_jump_table(gpa); }

}  // namespace sevisor::emulator
