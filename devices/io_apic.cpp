#include "devices/io_apic.hpp"

#include <algorithm>
#include <cstring>

namespace sevisor::devices {

void IoApic::read(std::uint64_t offset, std::span<std::byte> to) {
  const std::lock_guard lock(mutex_);
  const std::uint32_t value = registers_.read(static_cast<std::uint32_t>(offset));
  std::ranges::fill(to, std::byte{0});
  std::memcpy(to.data(), &value, std::min(to.size(), sizeof value));
}

void IoApic::write(std::uint64_t offset, std::span<const std::byte> from) {
  const std::lock_guard lock(mutex_);
  std::uint32_t value = 0;
  std::memcpy(&value, from.data(), std::min(from.size(), sizeof value));
  registers_.write(static_cast<std::uint32_t>(offset), value);
  update_messages();
  send_due();
}

void IoApic::set_line(unsigned pin, bool level) {
  const std::lock_guard lock(mutex_);
  if (const auto message = registers_.set_level(pin, level)) send(pin, *message);
}

void IoApic::end_of_interrupt(std::uint8_t vector) {
  const std::lock_guard lock(mutex_);
  registers_.end_of_interrupt(vector);
  send_due();
}

void IoApic::send(unsigned pin, const interrupts::InterruptMessage& message) {
  if (wiring_.send(interrupts::encode_msi(message))) registers_.delivered(pin);
}

void IoApic::send_due() {
  const std::uint32_t due = registers_.due();
  for (unsigned pin = 0; pin < kPins; ++pin) {
    if ((due >> pin & 1) != 0) send(pin, registers_.message(pin));
  }
}

void IoApic::update_messages() {
  PinMessages messages = messages_;
  for (unsigned pin = 0; pin < kPins; ++pin) {
    if (!registers_.masked(pin)) messages[pin] = interrupts::encode_msi(registers_.message(pin));
  }
  if (messages == messages_) return;
  messages_ = messages;
  wiring_.messages_changed(messages_);
}

}  // namespace sevisor::devices
