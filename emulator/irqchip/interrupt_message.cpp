#include "emulator/irqchip/interrupt_message.hpp"

namespace sevisor::emulator {

InterruptMessage decode_msi(std::uint64_t address, std::uint32_t data, bool extended_ids) noexcept {
  InterruptMessage message;
  message.destination = static_cast<std::uint32_t>(address >> 12) & 0xff;
  if (extended_ids) message.destination |= static_cast<std::uint32_t>(address >> 32) & 0xffffff00;
  message.redirection_hint = (address >> 3 & 1) != 0;
  message.logical = (address >> 2 & 1) != 0;
  message.vector = static_cast<std::uint8_t>(data & 0xff);
  message.mode = static_cast<DeliveryMode>(data >> 8 & 7);
  message.level_triggered = (data >> 15 & 1) != 0;
  return message;
}

}  // namespace sevisor::emulator
