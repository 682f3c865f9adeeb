// ioctls of the interrupt controllers in the kernel. Linux arch/x86/kvm/x86.c kvm_arch_vm_ioctl(), irq_comm.c.
#include <array>
#include <cerrno>
#include <vector>

#include "base/bytes.hpp"
#include "emulator/kvm/user_memory.hpp"
#include "emulator/kvm/vm.hpp"

namespace sevisor::emulator {

static_assert(sizeof(kvm_irqchip::chip) == kChipStateSize && sizeof(kvm_pit_state2) == kPitStateSize);

int Vm::create_irqchip(void*) {
  if (irqchip_) return -EEXIST;
  if (!vcpus_.empty()) return -EINVAL;
  irqchip_.emplace(clock_.now);
  return 0;
}

// Linux arch/x86/kvm/x86.c kvm_vm_ioctl_enable_cap().
int Vm::split_irqchip(std::uint64_t io_apic_pins) {
  if (io_apic_pins > kMaxGsis) return -EINVAL;
  if (irqchip_ || !vcpus_.empty()) return -EEXIST;
  irqchip_ = Irqchip::split(clock_.now, static_cast<std::uint32_t>(io_apic_pins));
  return 0;
}

int Vm::create_pit(void* argument) {
  kvm_pit_config config{};
  if (!get_user(config, argument)) return -EFAULT;
  if (irqchip_ && irqchip_->has_pit()) return -EEXIST;
  if (!irqchip_ || irqchip_->is_split()) return -ENOENT;
  return irqchip_->create_pit((config.flags & KVM_PIT_SPEAKER_DUMMY) != 0) ? 0 : -EEXIST;
}

int Vm::irq_line(void* argument) {
  kvm_irq_level line{};
  if (!get_user(line, argument)) return -EFAULT;
  if (!irqchip_) return -ENXIO;
  irqchip_->advance(clock_.now);
  irqchip_->set_gsi(line.irq, line.level != 0);
  scheduler_.wake();
  return 0;
}

int Vm::irq_line_status(void* argument) {
  kvm_irq_level line{};
  if (!get_user(line, argument)) return -EFAULT;
  if (!irqchip_) return -ENXIO;
  irqchip_->advance(clock_.now);
  line.status = irqchip_->set_gsi(line.irq, line.level != 0);
  scheduler_.wake();
  return put_user(argument, line) ? 0 : -EFAULT;
}

int Vm::set_gsi_routing(void* argument) {
  kvm_irq_routing header{};
  if (!get_user(header, argument)) return -EFAULT;
  if (!irqchip_ || header.nr > kMaxGsis || header.flags != 0) return -EINVAL;
  std::vector<kvm_irq_routing_entry> entries(header.nr);
  const auto* first = static_cast<const std::byte*>(argument) + offsetof(kvm_irq_routing, entries);
  if (!copy_from_user(std::as_writable_bytes(std::span(entries)), first)) return -EFAULT;
  std::vector<GsiRoute> routes;
  for (const kvm_irq_routing_entry& entry : entries) {
    GsiRoute route{.gsi = entry.gsi};
    if (entry.flags != 0) return -EINVAL;
    if (entry.type == KVM_IRQ_ROUTING_IRQCHIP && !irqchip_->is_split() &&
        entry.u.irqchip.irqchip <= KVM_IRQCHIP_IOAPIC) {
      route.target = static_cast<RouteTarget>(entry.u.irqchip.irqchip);
      route.pin = entry.u.irqchip.pin;
    } else if (entry.type == KVM_IRQ_ROUTING_MSI) {
      route.target = RouteTarget::kMsi;
      route.msi_address = std::uint64_t{entry.u.msi.address_hi} << 32 | entry.u.msi.address_lo;
      route.msi_data = entry.u.msi.data;
      // Bits 39:32 of a wide address are none of the destination's.
      if (irqchip_->wide_ids() && (entry.u.msi.address_hi & 0xff) != 0) return -EINVAL;
    } else {
      return -EINVAL;
    }
    routes.push_back(route);
  }
  return irqchip_->set_routes(std::move(routes)) ? 0 : -EINVAL;
}

int Vm::signal_msi(void* argument) {
  kvm_msi msi{};
  if (!get_user(msi, argument)) return -EFAULT;
  if (!irqchip_ || msi.flags != 0) return -EINVAL;
  irqchip_->advance(clock_.now);
  const int taken = irqchip_->signal_msi(std::uint64_t{msi.address_hi} << 32 | msi.address_lo, msi.data);
  scheduler_.wake();
  return taken > 0 ? 1 : 0;
}

int Vm::get_irqchip(void* argument) {
  kvm_irqchip state{};
  if (!copy_from_user(std::as_writable_bytes(std::span(&state, 1)), argument)) return -EFAULT;
  if (!irqchip_ || irqchip_->is_split()) return -ENXIO;
  if (state.chip_id > KVM_IRQCHIP_IOAPIC) return -EINVAL;
  irqchip_->advance(clock_.now);
  irqchip_->get_chip(static_cast<Chip>(state.chip_id),
                     std::as_writable_bytes(std::span(&state.chip, 1)).first<kChipStateSize>());
  return put_user(argument, state) ? 0 : -EFAULT;
}

int Vm::set_irqchip(void* argument) {
  kvm_irqchip state{};
  if (!get_user(state, argument)) return -EFAULT;
  if (!irqchip_ || irqchip_->is_split()) return -ENXIO;
  if (state.chip_id > KVM_IRQCHIP_IOAPIC) return -EINVAL;
  irqchip_->advance(clock_.now);
  irqchip_->set_chip(static_cast<Chip>(state.chip_id),
                     std::as_bytes(std::span(&state.chip, 1)).first<kChipStateSize>());
  scheduler_.wake();
  return 0;
}

int Vm::get_pit(void* argument) {
  if (!irqchip_) return -ENXIO;
  irqchip_->advance(clock_.now);
  std::array<std::byte, kPitStateSize> state{};
  if (!irqchip_->get_pit(state)) return -ENXIO;
  return copy_to_user(argument, state) ? 0 : -EFAULT;
}

int Vm::set_pit(void* argument) {
  std::array<std::byte, kPitStateSize> state{};
  if (!copy_from_user(state, argument)) return -EFAULT;
  if (!irqchip_) return -ENXIO;
  irqchip_->advance(clock_.now);
  return irqchip_->set_pit(state) ? 0 : -ENXIO;
}

}  // namespace sevisor::emulator
