#include "interrupts/interrupt_message.hpp"

namespace sevisor::interrupts {

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

Msi encode_msi(const InterruptMessage& message) noexcept {
  constexpr std::uint64_t kAddress = 0xfee00000;
  constexpr std::uint32_t kLevelAssert = 3U << 14;
  Msi msi{.address = kAddress | std::uint64_t{message.destination & 0xff} << 12, .data = message.vector};
  if (message.redirection_hint) msi.address |= 1 << 3;
  if (message.logical) msi.address |= 1 << 2;
  msi.data |= static_cast<std::uint32_t>(message.mode) << 8;
  if (message.level_triggered) msi.data |= kLevelAssert;
  return msi;
}

}  // namespace sevisor::interrupts
