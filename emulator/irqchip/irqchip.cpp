#include "emulator/irqchip/irqchip.hpp"

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/bytes.hpp"

namespace sevisor::emulator {
namespace {

constexpr std::size_t kRegisterSize = 4;
constexpr std::uint32_t kRegisterStride = 16;
constexpr std::uint32_t kTimerGsi = 0;

bool wants_one_target(const InterruptMessage& message) {
  return message.mode == DeliveryMode::kLowestPriority || message.redirection_hint;
}

// Notes that `source` holds the line up or lets go of it; returns whether anybody holds it.
bool combine(std::uint8_t& holders, LineSource source, bool level) {
  const auto bit = static_cast<std::uint8_t>(1U << static_cast<unsigned>(source));
  holders = static_cast<std::uint8_t>(level ? holders | bit : holders & ~bit);
  return holders != 0;
}

}  // namespace

Irqchip::Irqchip(std::uint64_t now) : now_(now) {}

Irqchip Irqchip::split(std::uint64_t now, std::uint32_t io_apic_pins) {
  Irqchip chip(now);
  chip.split_pins_ = io_apic_pins;
  chip.routes_.clear();
  return chip;
}

bool Irqchip::create_pit(bool port_61) {
  if (pit_) return false;
  pit_.emplace(port_61, now_);
  return true;
}

unsigned Irqchip::add_vcpu(std::uint32_t apic_id) { return add_vcpu(apic_id, apics_.empty()); }

unsigned Irqchip::add_vcpu(std::uint32_t apic_id, bool bootstrap) {
  apics_.emplace_back(apic_id, bootstrap);
  ended_.emplace_back();
  return vcpus() - 1;
}

void Irqchip::set_x2apic_api(bool wide_ids, bool no_broadcast_quirk) noexcept {
  wide_ids_ = wide_ids;
  broadcast_quirk_ = !no_broadcast_quirk;
}

void Irqchip::advance(std::uint64_t now) {
  now_ = std::max(now_, now);
  if (deadline_ > now_) return;
  if (pit_ && pit_->advance(now_)) {
    set_gsi(kTimerGsi, true, LineSource::kPit);
    set_gsi(kTimerGsi, false, LineSource::kPit);
  }
  for (LocalApic& apic : apics_) apic.advance(now_);
  refresh_deadline();
}

void Irqchip::set_clock_forward(std::uint64_t ticks) {
  std::array<std::byte, kPitStateSize> pit{};
  const bool has_pit = get_pit(pit);
  now_ += ticks;
  if (has_pit) pit_->set_state(pit, now_);
  for (LocalApic& apic : apics_) apic.set_clock_forward(ticks);
  timers_changed();
}

void Irqchip::refresh_deadline() noexcept {
  deadline_ = pit_ ? pit_->next_deadline() : kNoDeadline;
  for (const LocalApic& apic : apics_) deadline_ = std::min(deadline_, apic.next_deadline());
}

void Irqchip::timers_changed() {
  refresh_deadline();
  advance(now_);
}

bool Irqchip::read_mmio(unsigned vcpu, Gpa address, std::span<std::byte> data) {
  LocalApic& apic = apics_.at(vcpu);
  if (address.page() == apic.mmio_base()) {
    if (!apic.hardware_enabled() || apic.x2apic()) {  // a hole that KVM answers for (KVM_X86_QUIRK_LAPIC_MMIO_HOLE)
      std::fill(data.begin(), data.end(), std::byte{0xff});
      return true;
    }
    std::fill(data.begin(), data.end(), std::byte{0});
    const auto offset = static_cast<std::uint32_t>(address.offset_in_page());
    const std::uint32_t within = offset % kRegisterStride;
    if (within + data.size() <= kRegisterSize) {
      const std::uint32_t value = apic.read(offset - within, now_);
      std::memcpy(data.data(), reinterpret_cast<const std::byte*>(&value) + within, data.size());
    }
    return true;
  }
  if (!is_split() && address >= io_apic_.base() && address - io_apic_.base() < kIoApicWindow) {
    std::fill(data.begin(), data.end(), std::byte{0});
    const std::uint32_t value = io_apic_.read(static_cast<std::uint32_t>(address - io_apic_.base()));
    std::memcpy(data.data(), &value, std::min(data.size(), kRegisterSize));
    return true;
  }
  return false;
}

bool Irqchip::write_mmio(unsigned vcpu, Gpa address, std::span<const std::byte> data) {
  LocalApic& apic = apics_.at(vcpu);
  if (address.page() == apic.mmio_base()) {
    const auto offset = static_cast<std::uint32_t>(address.offset_in_page());
    const bool whole = offset % kRegisterStride == 0 && data.size() == kRegisterSize;
    if (whole && apic.hardware_enabled() && !apic.x2apic()) {
      apply(vcpu, apic.write(offset, load<std::uint32_t>(data.data()), now_));
      timers_changed();
    }
    return true;
  }
  if (!is_split() && address >= io_apic_.base() && address - io_apic_.base() < kIoApicWindow) {
    std::uint32_t value = 0;
    std::memcpy(&value, data.data(), std::min(data.size(), kRegisterSize));
    io_apic_.write(static_cast<std::uint32_t>(address - io_apic_.base()), value);
    deliver_due_pins();
    return true;
  }
  return false;
}

bool Irqchip::read_port(std::uint16_t port, std::uint8_t& value) {
  if (is_split()) return false;
  if (PicPair::owns_port(port)) {
    value = pic_.read_port(port);
    follow_pic_output();  // a poll acknowledges
    return true;
  }
  if (pit_ && pit_->owns_port(port)) {
    value = pit_->read_port(port, now_);
    return true;
  }
  return false;
}

bool Irqchip::write_port(std::uint16_t port, std::uint8_t value) {
  if (is_split()) return false;
  if (PicPair::owns_port(port)) {
    pic_.write_port(port, value);
    follow_pic_output();
    return true;
  }
  if (pit_ && pit_->owns_port(port)) {
    pit_->write_port(port, value, now_);
    timers_changed();
    return true;
  }
  return false;
}

bool Irqchip::owns_msr(std::uint32_t index) noexcept {
  return index == kMsrApicBase || index == kMsrTscDeadline || (index >= kMsrX2apicFirst && index <= kMsrX2apicLast);
}

std::optional<std::uint64_t> Irqchip::read_msr(unsigned vcpu, std::uint32_t index) {
  const LocalApic& apic = apics_.at(vcpu);
  if (index == kMsrApicBase) return apic.apic_base();
  if (index == kMsrTscDeadline) return apic.tsc_deadline();
  return apic.read_msr(index, now_);
}

bool Irqchip::write_msr(unsigned vcpu, std::uint32_t index, std::uint64_t value, bool from_host) {
  LocalApic& apic = apics_.at(vcpu);
  if (index == kMsrApicBase) {
    if (!apic.set_apic_base(value, from_host)) return false;
  } else if (index == kMsrTscDeadline) {
    apic.set_tsc_deadline(value);
  } else {
    const auto effect = apic.write_msr(index, value, now_);
    if (!effect) return false;
    apply(vcpu, *effect);
  }
  timers_changed();
  return true;
}

void Irqchip::apply(unsigned vcpu, const ApicEffect& effect) {
  if (effect.ipi) {
    InterruptMessage message = *effect.ipi;
    message.sender = vcpu;
    deliver(message);
  }
  if (is_split()) {
    if (effect.ended_vector && user_space_must_know(vcpu, *effect.ended_vector, effect.eoi_vector.has_value())) {
      ended_[vcpu] = effect.ended_vector;
    }
    return;
  }
  if (effect.ended_vector) notify_ended(RouteTarget::kIoApic, io_apic_.pins_with(*effect.ended_vector));
  if (effect.eoi_vector) {
    io_apic_.end_of_interrupt(*effect.eoi_vector);
    deliver_due_pins();
  }
}

bool Irqchip::addresses(const InterruptMessage& message, unsigned vcpu) const {
  const LocalApic& apic = apics_[vcpu];
  if (!apic.hardware_enabled()) return false;
  switch (message.shorthand) {
    case Shorthand::kSelf:
      return message.sender == vcpu;
    case Shorthand::kAll:
      return true;
    case Shorthand::kAllButSelf:
      return message.sender != vcpu;
    case Shorthand::kNone:
      break;
  }
  return apic.matches(message.destination, message.logical, !message.sender, broadcast_quirk_);
}

int Irqchip::deliver(const InterruptMessage& message) {
  LocalApic* best = nullptr;
  int taken = 0;
  for (unsigned vcpu = 0; vcpu < vcpus(); ++vcpu) {
    LocalApic& apic = apics_[vcpu];
    if (!addresses(message, vcpu)) continue;
    if (!wants_one_target(message)) {
      if (apic.accept(message.mode, message.vector, message.level_triggered, message.asserted)) ++taken;
    } else if (apic.software_enabled() && (best == nullptr || apic.arbitration_rank() < best->arbitration_rank())) {
      best = &apic;
    }
  }
  if (best != nullptr) {
    best->count_arbitration();
    if (best->accept(message.mode, message.vector, message.level_triggered, message.asserted)) ++taken;
  }
  return taken;
}

bool Irqchip::set_routes(std::vector<GsiRoute> routes) {
  if (!gsi_routes_valid(routes)) return false;
  routes_ = std::move(routes);
  return true;
}

int Irqchip::set_gsi(std::uint32_t gsi, bool level, LineSource source) {
  constexpr unsigned kSlaveFirst = 8;
  int result = kIgnored;
  for (const GsiRoute& route : routes_) {
    if (route.gsi != gsi) continue;
    int taken = kIgnored;
    switch (route.target) {
      case RouteTarget::kPicMaster:
        taken = set_pic_line(route.pin, level, source);
        break;
      case RouteTarget::kPicSlave:
        taken = set_pic_line(kSlaveFirst + route.pin, level, source);
        break;
      case RouteTarget::kIoApic:
        taken = set_io_apic_pin(route.pin, level, source);
        break;
      case RouteTarget::kMsi:
        if (level) taken = signal_msi(route.msi_address, route.msi_data);
        if (taken == 0) taken = kIgnored;  // nobody is there
        break;
    }
    if (taken != kIgnored) result = std::max(result, 0) + taken;
  }
  return result;
}

int Irqchip::set_pic_line(unsigned irq, bool level, LineSource source) {
  const bool is_new = pic_.set_level(irq, combine(pic_lines_[irq], source, level));
  follow_pic_output();
  if (pic_.masked(irq)) return kIgnored;
  return is_new || !level ? 1 : 0;
}

int Irqchip::set_io_apic_pin(unsigned pin, bool level, LineSource source) {
  const auto message = io_apic_.set_level(pin, combine(io_apic_lines_[pin], source, level));
  if (!level) return 1;
  if (io_apic_.masked(pin)) return kIgnored;
  if (!message) return 0;
  const int taken = deliver(*message);
  if (taken > 0) io_apic_.delivered(pin);
  return taken;
}

void Irqchip::deliver_due_pins() {
  const std::uint32_t due = io_apic_.due();
  for (unsigned pin = 0; pin < kIoApicPins; ++pin) {
    if ((due >> pin & 1) != 0 && deliver(io_apic_.message(pin)) > 0) io_apic_.delivered(pin);
  }
}

// Linux kvm_scan_ioapic_routes(): level-triggered routes of the pins, if they come to this vCPU, or came before they
// were changed.
bool Irqchip::user_space_must_know(unsigned vcpu, std::uint8_t vector, bool level_triggered) const {
  return std::ranges::any_of(routes_, [&](const GsiRoute& route) {
    if (route.gsi >= *split_pins_ || route.target != RouteTarget::kMsi) return false;
    const InterruptMessage message = interrupts::decode_msi(route.msi_address, route.msi_data, wide_ids_);
    return message.level_triggered && message.vector == vector && (level_triggered || addresses(message, vcpu));
  });
}

// Linux irqfd_resampler_ack(): before Remote IRR goes, so that a line that nobody else holds up does not interrupt
// again.
void Irqchip::notify_ended(RouteTarget chip, std::uint32_t pins) {
  if (watched_gsis_.empty()) return;
  for (const GsiRoute& route : routes_) {
    if (route.target != chip || (pins >> route.pin & 1) == 0) continue;
    if (std::ranges::find(watched_gsis_, route.gsi) == watched_gsis_.end()) continue;
    set_gsi(route.gsi, false, LineSource::kResample);
    acknowledged_.push_back(route.gsi);
  }
}

void Irqchip::notify_pic_ended() {
  const std::uint16_t ended = pic_.take_ended();
  if (ended == 0) return;
  notify_ended(RouteTarget::kPicMaster, ended & 0xff);
  notify_ended(RouteTarget::kPicSlave, ended >> 8);
}

void Irqchip::follow_pic_output() {
  notify_pic_ended();
  const bool output = pic_.output();
  if (output && !pic_output_) {
    for (LocalApic& apic : apics_) apic.local_interrupt(LocalVector::kLint0);
  }
  pic_output_ = output;
}

int Irqchip::signal_msi(std::uint64_t address, std::uint32_t data) {
  return deliver(interrupts::decode_msi(address, data, wide_ids_));
}

bool Irqchip::interrupt_pending(unsigned vcpu) const {
  const LocalApic& apic = apics_.at(vcpu);
  return (pic_output_ && apic.takes_external_interrupts()) || apic.pending_vector().has_value();
}

std::optional<std::uint8_t> Irqchip::acknowledge(unsigned vcpu) {
  LocalApic& apic = apics_.at(vcpu);
  if (pic_output_ && apic.takes_external_interrupts()) {
    const std::uint8_t vector = pic_.acknowledge();
    follow_pic_output();
    return vector;
  }
  return apic.acknowledge();
}

bool Irqchip::take_nmi(unsigned vcpu) {
  LocalApic& apic = apics_.at(vcpu);
  const bool pending = apic.nmi_pending();
  apic.set_nmi_pending(false);
  return pending;
}

bool Irqchip::take_init(unsigned vcpu) {
  const bool taken = apics_.at(vcpu).take_init();
  if (taken) refresh_deadline();
  return taken;
}

bool Irqchip::event_pending(unsigned vcpu) const {
  const LocalApic& apic = apics_.at(vcpu);
  return apic.nmi_pending() || apic.init_pending() || apic.sipi_pending() || interrupt_pending(vcpu);
}

void Irqchip::get_lapic(unsigned vcpu, std::span<std::byte, kApicStateSize> state) const {
  apics_.at(vcpu).get_state(state, now_, wide_ids_);
}

bool Irqchip::set_lapic(unsigned vcpu, std::span<const std::byte, kApicStateSize> state) {
  if (!apics_.at(vcpu).set_state(state, now_, wide_ids_)) return false;
  timers_changed();
  return true;
}

void Irqchip::get_chip(Chip chip, std::span<std::byte, kChipStateSize> state) const {
  std::fill(state.begin(), state.end(), std::byte{0});
  if (chip == Chip::kIoApic) {
    io_apic_.get_state(state.first<kIoApicStateSize>());
  } else {
    pic_.get_state(static_cast<unsigned>(chip), state.first<kPicStateSize>());
  }
}

void Irqchip::set_chip(Chip chip, std::span<const std::byte, kChipStateSize> state) {
  if (chip == Chip::kIoApic) {
    io_apic_.set_state(state.first<kIoApicStateSize>());
    deliver_due_pins();
  } else {
    pic_.set_state(static_cast<unsigned>(chip), state.first<kPicStateSize>());
    follow_pic_output();
  }
}

bool Irqchip::get_pit(std::span<std::byte, kPitStateSize> state) const {
  if (pit_) pit_->get_state(state, now_);
  return pit_.has_value();
}

bool Irqchip::set_pit(std::span<const std::byte, kPitStateSize> state) {
  if (!pit_) return false;
  pit_->set_state(state, now_);
  timers_changed();
  return true;
}

}  // namespace sevisor::emulator
