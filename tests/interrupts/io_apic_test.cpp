// Intel 82093AA datasheet, sections 3.2 and 4.
#include "interrupts/io_apic.hpp"

#include <catch2/catch.hpp>

using namespace sevisor::interrupts;

namespace {

std::uint32_t read_register(IoApic& chip, std::uint32_t index) {
  chip.write(0x00, index);
  return chip.read(0x10);
}

void write_register(IoApic& chip, std::uint32_t index, std::uint32_t value) {
  chip.write(0x00, index);
  chip.write(0x10, value);
}

void write_entry(IoApic& chip, unsigned pin, std::uint64_t entry) {
  write_register(chip, 0x11 + 2 * pin, static_cast<std::uint32_t>(entry >> 32));
  write_register(chip, 0x10 + 2 * pin, static_cast<std::uint32_t>(entry));
}

constexpr std::uint32_t kRemoteIrr = 1 << 14;
constexpr std::uint32_t kLevel = 1 << 15;
constexpr std::uint32_t kMasked = 1 << 16;

}  // namespace

TEST_CASE("IOAPIC registers after reset") {
  IoApic chip;
  CHECK(read_register(chip, 1) == 0x00170011);
  CHECK(chip.read(0x00) == 1);
  CHECK(read_register(chip, 0) == 0);
  write_register(chip, 0, 0xff000000);
  CHECK(read_register(chip, 0) == 0x0f000000);
  CHECK(read_register(chip, 2) == 0x0f000000);
  write_register(chip, 1, 0xffffffff);
  CHECK(read_register(chip, 1) == 0x00170011);
  for (unsigned pin = 0; pin < kIoApicPins; ++pin) {
    CHECK(read_register(chip, 0x10 + 2 * pin) == kMasked);
    CHECK(read_register(chip, 0x11 + 2 * pin) == 0);
  }
  CHECK(read_register(chip, 0x40) == 0xffffffff);
  write_register(chip, 0xff, 0x12345678);
}

TEST_CASE("Delivery status and Remote IRR are read-only") {
  IoApic chip;
  write_entry(chip, 3, 0xff000000'0001ffff);
  CHECK(read_register(chip, 0x16) == 0x0001afff);
  CHECK(read_register(chip, 0x17) == 0xff000000);
}

TEST_CASE("An edge is sent once for each rise") {
  IoApic chip;
  write_entry(chip, 4, 0x05000000'00000834);
  const auto message = chip.set_level(4, true);
  REQUIRE(message);
  CHECK(message->destination == 5);
  CHECK(message->logical);
  CHECK(message->vector == 0x34);
  CHECK(message->mode == DeliveryMode::kFixed);
  CHECK_FALSE(message->level_triggered);
  chip.delivered(4);
  CHECK((read_register(chip, 0x18) & kRemoteIrr) == 0);
  CHECK_FALSE(chip.set_level(4, true));
  CHECK_FALSE(chip.set_level(4, false));
  CHECK(chip.set_level(4, true));
  CHECK(chip.due() == 0);
}

TEST_CASE("An edge on a masked pin is lost") {
  IoApic chip;
  write_entry(chip, 4, kMasked | 0x34);
  CHECK_FALSE(chip.set_level(4, true));
  write_entry(chip, 4, 0x34);
  CHECK(chip.due() == 0);
}

TEST_CASE("A level-triggered pin is held by Remote IRR until EOI, and sent again while high") {
  IoApic chip;
  write_entry(chip, 9, kLevel | 0x61);
  REQUIRE(chip.set_level(9, true));
  chip.delivered(9);
  CHECK((read_register(chip, 0x22) & kRemoteIrr) != 0);
  CHECK(chip.due() == 0);
  CHECK_FALSE(chip.set_level(9, false));
  CHECK_FALSE(chip.set_level(9, true));  // not before EOI
  chip.end_of_interrupt(0x62);
  CHECK((read_register(chip, 0x22) & kRemoteIrr) != 0);
  chip.end_of_interrupt(0x61);
  CHECK((read_register(chip, 0x22) & kRemoteIrr) == 0);
  CHECK(chip.due() == 1U << 9);
  CHECK(chip.message(9).level_triggered);
  chip.delivered(9);
  CHECK_FALSE(chip.set_level(9, false));
  chip.end_of_interrupt(0x61);
  CHECK(chip.due() == 0);
}

TEST_CASE("A level-triggered pin that is high becomes due when unmasked") {
  IoApic chip;
  write_entry(chip, 9, kMasked | kLevel | 0x61);
  CHECK_FALSE(chip.set_level(9, true));
  CHECK(chip.due() == 0);
  write_entry(chip, 9, kLevel | 0x61);
  CHECK(chip.due() == 1U << 9);
}

// Linux's way of an EOI without an EOI register (arch/x86/kernel/apic/io_apic.c).
TEST_CASE("Switching an entry to edge clears Remote IRR") {
  IoApic chip;
  write_entry(chip, 9, kLevel | 0x61);
  REQUIRE(chip.set_level(9, true));
  chip.delivered(9);
  write_register(chip, 0x22, kMasked | 0x61);
  CHECK((read_register(chip, 0x22) & kRemoteIrr) == 0);
  write_register(chip, 0x22, kLevel | 0x61);
  CHECK(chip.due() == 1U << 9);
}
