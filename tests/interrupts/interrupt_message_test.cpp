#include "interrupts/interrupt_message.hpp"

#include <catch2/catch.hpp>

using namespace sevisor::interrupts;

// Intel SDM vol. 3, "Message Signalled Interrupts".
TEST_CASE("An MSI is decoded by address and data") {
  const InterruptMessage fixed = decode_msi(0xfee03000, 0x0031, false);
  CHECK(fixed.destination == 3);
  CHECK_FALSE(fixed.logical);
  CHECK(fixed.mode == DeliveryMode::kFixed);
  CHECK(fixed.vector == 0x31);
  CHECK_FALSE(fixed.level_triggered);
  CHECK_FALSE(fixed.sender.has_value());

  const InterruptMessage lowest = decode_msi(0xfee0f00c, 0xc141, false);
  CHECK(lowest.destination == 0x0f);
  CHECK(lowest.logical);
  CHECK(lowest.redirection_hint);
  CHECK(lowest.mode == DeliveryMode::kLowestPriority);
  CHECK(lowest.level_triggered);

  CHECK(decode_msi(0x0000'0100'fee2c000, 0x31, true).destination == 0x12c);
  CHECK(decode_msi(0x0000'0100'fee2c000, 0x31, false).destination == 0x2c);
}

TEST_CASE("A message goes out as the MSI that means it") {
  const InterruptMessage message{.destination = 3, .vector = 0x31, .sender = {}};
  CHECK(encode_msi(message) == Msi{.address = 0xfee03000, .data = 0x31});
  const InterruptMessage lowest{.destination = 0x0f,
                                .logical = true,
                                .mode = DeliveryMode::kLowestPriority,
                                .vector = 0x41,
                                .level_triggered = true,
                                .sender = {}};
  // Bit 14 of the data: level-triggered messages are assertions.
  CHECK(encode_msi(lowest) == Msi{.address = 0xfee0f004, .data = 0xc141});
  CHECK(decode_msi(encode_msi(lowest).address, encode_msi(lowest).data, false) == lowest);
}
