// ioctls on what a vCPU waits for and what waits for it: events, MP state, LAPIC, NMI, interrupts.
// Linux arch/x86/kvm/x86.c kvm_arch_vcpu_ioctl().
#include <cerrno>
#include <cstring>

#include "emulator/cpu/state/registers.hpp"
#include "emulator/kvm/user_memory.hpp"
#include "emulator/kvm/vcpu.hpp"
#include "emulator/kvm/vm.hpp"
#include "ghcb/event.hpp"

namespace sevisor::emulator {

namespace {
constexpr std::uint8_t kExceptions = 32;  // vectors

constexpr std::uint8_t kShadowMovSs = 1;  // kvm_vcpu_events.interrupt.shadow: KVM_X86_SHADOW_INT_MOV_SS, ..._STI
constexpr std::uint8_t kShadowSti = 2;
}  // namespace

int Vcpu::get_vcpu_events(void* argument) {
  kvm_vcpu_events events{};
  events.nmi.pending = vm_.irqchip() != nullptr ? vm_.irqchip()->nmi_pending(index_) : nmi_pending_;
  events.nmi.masked = nmi_masked_;
  // The VMCB has one bit for both kinds.
  if (loaded_ ? cpu_->interrupt_shadow() : shadow_) events.interrupt.shadow = kShadowSti | kShadowMovSs;
  events.flags = KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW;
  if (const ghcb::Event event = ghcb::decode_event(reinjection_); event.valid) {
    if (event.type == ghcb::EventType::kExternal) {
      events.interrupt.injected = 1;
      events.interrupt.nr = event.vector;
    } else if (event.type == ghcb::EventType::kException) {
      events.exception.injected = 1;
      events.exception.nr = event.vector;
      events.exception.has_error_code = event.has_error_code;
      events.exception.error_code = event.error_code;
    }
  }
  return put_user(argument, events) ? 0 : -EFAULT;
}
int Vcpu::set_vcpu_events(void* argument) {
  kvm_vcpu_events events{};
  return get_user(events, argument) ? apply_events(events) : -EFAULT;
}

int Vcpu::apply_events(const kvm_vcpu_events& events) {
  constexpr std::uint32_t kKnown = KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SIPI_VECTOR |
                                   KVM_VCPUEVENT_VALID_SHADOW | KVM_VCPUEVENT_VALID_SMM;
  if (events.flags & ~kKnown) return -EINVAL;
  if ((events.exception.injected || events.exception.pending) &&
      (events.exception.nr >= kExceptions || events.exception.nr == kVectorNmi)) {
    return -EINVAL;
  }
  nmi_masked_ = events.nmi.masked != 0;
  if (events.flags & KVM_VCPUEVENT_VALID_SHADOW) {
    shadow_ = events.interrupt.shadow != 0;
    if (loaded_) cpu_->set_interrupt_shadow(shadow_);
  }
  if ((events.flags & KVM_VCPUEVENT_VALID_NMI_PENDING) && (events.nmi.pending || ordinary())) {
    if (vm_.irqchip() == nullptr) {
      nmi_pending_ = events.nmi.pending != 0;
    } else if (events.nmi.pending) {
      vm_.irqchip()->raise_nmi(index_);
    } else {
      (void)vm_.irqchip()->take_nmi(index_);
    }
  }
  if (ordinary()) reinjection_ = 0;
  // A vector of user space's own making is injected as it stands.
  if (events.interrupt.injected) {
    reinjection_ = ghcb::encode(ghcb::Event{.vector = events.interrupt.nr, .type = ghcb::EventType::kExternal});
  } else if (events.exception.injected) {
    reinjection_ = ghcb::encode(ghcb::Event{.vector = events.exception.nr,
                                            .type = ghcb::EventType::kException,
                                            .has_error_code = events.exception.has_error_code != 0,
                                            .error_code = events.exception.error_code});
  }
  return 0;
}

int Vcpu::get_mp_state(void* argument) {
  (void)accept_events();
  const kvm_mp_state state{.mp_state = mp_state_};
  return put_user(argument, state) ? 0 : -EFAULT;
}

int Vcpu::set_mp_state(void* argument) {
  kvm_mp_state state{};
  if (!get_user(state, argument)) return -EFAULT;
  const bool apic = vm_.irqchip() != nullptr;
  switch (state.mp_state) {
    case KVM_MP_STATE_RUNNABLE:
      break;
    case KVM_MP_STATE_UNINITIALIZED:
    case KVM_MP_STATE_INIT_RECEIVED:
    case KVM_MP_STATE_HALTED:
    case KVM_MP_STATE_SIPI_RECEIVED:
    case KVM_MP_STATE_AP_RESET_HOLD:
      if (!apic) return -EINVAL;
      break;
    default:
      return -EINVAL;
  }
  mp_state_ = state.mp_state == KVM_MP_STATE_SIPI_RECEIVED ? KVM_MP_STATE_RUNNABLE : state.mp_state;
  return 0;
}

int Vcpu::get_lapic(void* argument) {
  if (vm_.irqchip() == nullptr) return -EINVAL;
  std::array<std::byte, kApicStateSize> state{};
  vm_.irqchip()->advance(vm_.clock().now);
  vm_.irqchip()->get_lapic(index_, state);
  return copy_to_user(argument, state) ? 0 : -EFAULT;
}
int Vcpu::set_lapic(void* argument) {
  std::array<std::byte, kApicStateSize> state{};
  if (!copy_from_user(state, argument)) return -EFAULT;
  if (vm_.irqchip() == nullptr) return -EINVAL;
  vm_.irqchip()->advance(vm_.clock().now);
  return vm_.irqchip()->set_lapic(index_, state) ? 0 : -EINVAL;
}

int Vcpu::nmi(void*) {
  if (vm_.irqchip() == nullptr) {
    nmi_pending_ = true;
  } else {
    vm_.irqchip()->raise_nmi(index_);
  }
  vm_.scheduler().wake();
  return 0;
}

// The interrupt controllers are user space's, who has asked whether it may (ready_for_interrupt_injection).
int Vcpu::interrupt(void* argument) {
  kvm_interrupt interrupt{};
  if (!get_user(interrupt, argument)) return -EFAULT;
  if (interrupt.irq > 0xff) return -EINVAL;
  if (vm_.irqchip() != nullptr) return -ENXIO;
  reinjection_ =
      ghcb::encode(ghcb::Event{.vector = static_cast<std::uint8_t>(interrupt.irq), .type = ghcb::EventType::kExternal});
  return 0;
}

}  // namespace sevisor::emulator
