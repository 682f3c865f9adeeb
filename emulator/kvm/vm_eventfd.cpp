// ioctls for what happens without an exit to user space: eventfds that interrupt a VM, eventfds that its writes signal,
// and writes that are collected in a ring. Linux virt/kvm/eventfd.c, coalesced_mmio.c.
//
// When an eventfd is taken up decides whether runs can be repeated. A thread of user space that answers an exit holds
// the turn, so what it has signalled comes into force at one place only, its next ioctl. Whatever a guest's own write
// signals comes into force before its next instruction. The watching thread acts only while vCPUs run or wait, when a
// signal comes from outside.
#include <cerrno>
#include <stdexcept>
#include <utility>

#include "emulator/kvm/user_memory.hpp"
#include "emulator/kvm/vm.hpp"

namespace sevisor::emulator {

namespace {
// How soon to look again for what came while the turn was with user space, and may stay there.
constexpr std::chrono::milliseconds kLookAgain{100};
}  // namespace

int Vm::irqfd(void* argument) {
  kvm_irqfd request{};
  if (!get_user(request, argument)) return -EFAULT;
  constexpr std::uint32_t kKnown = KVM_IRQFD_FLAG_DEASSIGN | KVM_IRQFD_FLAG_RESAMPLE;
  if ((request.flags & ~kKnown) != 0) return -EINVAL;
  if ((request.flags & KVM_IRQFD_FLAG_DEASSIGN) != 0) {
    int error = 0;
    for (const std::uint32_t gsi : irqfds_.remove(request, error)) {
      if (irqchip_) irqchip_->set_gsi(gsi, false, LineSource::kResample);
    }
    if (irqchip_) irqchip_->watch_acknowledgements(irqfds_.resampled_gsis());
    return error;
  }
  const bool resample = (request.flags & KVM_IRQFD_FLAG_RESAMPLE) != 0;
  if (!irqchip_ || (resample && irqchip_->is_split())) return -EINVAL;
  try {
    if (!event_watch_) event_watch_ = std::make_unique<EventWatch>([this] { return irqfds_signalled(); });
  } catch (const std::runtime_error&) {
    return -ENOMEM;
  }
  if (const int error = irqfds_.assign(request, *event_watch_); error != 0) return error;
  irqchip_->watch_acknowledgements(irqfds_.resampled_gsis());
  deliver_irqfds();  // what was signalled before counts
  return 0;
}

int Vm::ioeventfd(void* argument) {
  kvm_ioeventfd request{};
  return get_user(request, argument) ? io_eventfds_.request(request) : -EFAULT;
}

int Vm::register_coalesced(void* argument) {
  // NR_IOBUS_DEVS counts these: the IOAPIC; the PIC pair and its ELCR, the PIT and its port 0x61.
  constexpr std::size_t kMmioDevices = 1;
  constexpr std::size_t kPicDevices = 3;
  constexpr std::size_t kPitDevices = 2;
  kvm_coalesced_mmio_zone zone{};
  if (!get_user(zone, argument)) return -EFAULT;
  std::size_t devices = 0;
  if (irqchip_ && !irqchip_->is_split())
    devices = zone.pio == 0 ? kMmioDevices : kPicDevices + (irqchip_->has_pit() ? kPitDevices : 0);
  return coalesced_.add(zone, devices);
}

int Vm::unregister_coalesced(void* argument) {
  kvm_coalesced_mmio_zone zone{};
  return get_user(zone, argument) ? coalesced_.remove(zone) : -EFAULT;
}

std::optional<std::chrono::milliseconds> Vm::irqfds_signalled() {
  const std::lock_guard lock(this->lock());
  if (scheduler_.running()) deliver_irqfds();
  return irqfds_.pending() ? std::optional(kLookAgain) : std::nullopt;
}

void Vm::deliver_irqfds() {
  if (irqfds_.empty() || !irqchip_) return;
  for (const Irqfds::Signal& signal : irqfds_.take_signals()) {
    irqchip_->advance(clock_.now);
    if (signal.resample) {
      irqchip_->set_gsi(signal.gsi, true, LineSource::kResample);
    } else {
      irqchip_->set_gsi(signal.gsi, true);
      irqchip_->set_gsi(signal.gsi, false);
    }
    scheduler_.wake();
  }
}

void Vm::settle_eventfds() {
  if (irqchip_ && !irqfds_.empty()) {
    for (const std::uint32_t gsi : irqchip_->take_acknowledged()) {
      irqfds_.acknowledged(gsi);
      eventfd_signalled_ = true;
    }
  }
  if (std::exchange(eventfd_signalled_, false)) deliver_irqfds();
}

bool Vm::write_device(IoBus bus, std::uint64_t address, std::span<const std::byte> data) {
  if (!io_eventfds_.write(bus, address, data)) return coalesced_.write(bus, address, data);
  eventfd_signalled_ = true;
  return true;
}

}  // namespace sevisor::emulator
