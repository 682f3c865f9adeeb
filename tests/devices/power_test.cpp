#include "devices/power.hpp"

#include <catch2/catch.hpp>
#include <span>
#include <vector>

#include "devices/debug_ports.hpp"
#include "tests/devices/helpers.hpp"

namespace sevisor::devices::test {
namespace {

using Kind = MachineEvent::Kind;

struct Events {
  std::vector<MachineEvent> seen;
  [[nodiscard]] MachineEventSink sink() {
    return [this](const MachineEvent& event) { seen.push_back(event); };
  }
};

TEST_CASE("the PM1 control register powers off for S5 with SLP_EN only") {
  Events events;
  Pm1Registers device(events.sink());
  const auto out16 = [&](std::uint64_t offset, unsigned value) {
    out8(device, offset, value & 0xff);
    out8(device, offset + 1, value >> 8U);
  };
  out16(0, 0xffff);                 // clears status bits
  out16(2, 0x0020);                 // enables GBL_EN
  out16(4, 5U << 10U);              // SLP_TYP without SLP_EN
  out16(4, 1U << 13U);              // SLP_EN with another type
  out16(2, 5U << 10U | 1U << 13U);  // the enable register
  CHECK(events.seen.empty());
  CHECK(in(device, 0) == 0);
  CHECK((in(device, 4) & 1U) == 1);     // SCI_EN, always
  CHECK((in(device, 5) & 0x20U) == 0);  // SLP_EN is write-only
  out16(4, 5U << 10U | 1U << 13U | 1U);
  CHECK(events.seen == std::vector<MachineEvent>{{Kind::kPowerOff, 0}});
}

TEST_CASE("one 16-bit write to PM1 control powers off too") {
  Events events;
  Pm1Registers device(events.sink());
  const std::uint16_t value = 5U << 10U | 1U << 13U;
  device.write(4, std::as_bytes(std::span(&value, 1)));
  CHECK(events.seen == std::vector<MachineEvent>{{Kind::kPowerOff, 0}});
}

// ACPI 6.4, 4.8.2.2.1.1 and 4.8.3.1: PWRBTN_STS and PWRBTN_EN are bit 8; SCI is asserted while both are set; writing 1
// to the status bit clears it.
TEST_CASE("the power button raises the SCI until the guest clears its status") {
  IrqProbe sci;
  Pm1Registers device({}, sci.line());
  out8(device, 3, 0x01);
  CHECK_FALSE(sci.level);
  device.press_power_button();
  CHECK(sci.level);
  CHECK(in<std::uint16_t>(device, 0) == 0x0100);
  device.press_power_button();  // while it is down still
  CHECK(sci.rises == 1);
  out8(device, 1, 0xfe);  // other bits
  CHECK(sci.level);
  out8(device, 1, 0x01);
  CHECK_FALSE(sci.level);
  CHECK(in<std::uint16_t>(device, 0) == 0);
  device.press_power_button();
  CHECK(sci.rises == 2);
}

TEST_CASE("a power button that the guest has not enabled waits for it") {
  IrqProbe sci;
  Pm1Registers device({}, sci.line());
  device.press_power_button();
  CHECK_FALSE(sci.level);
  out8(device, 2, 0x20);  // another event's enable bit
  CHECK_FALSE(sci.level);
  out8(device, 3, 0x01);
  CHECK(sci.level);
  out8(device, 3, 0x00);
  CHECK_FALSE(sci.level);
  out8(device, 3, 0x01);
  CHECK(sci.level);
  // The enable register is no way to set status.
  out(device, 0, std::uint16_t{0xffff});
  CHECK(in<std::uint16_t>(device, 0) == 0);
  CHECK_FALSE(sci.level);
}

TEST_CASE("the power button without an interrupt line can be polled") {
  Pm1Registers device({});
  out8(device, 3, 0x01);
  device.press_power_button();
  CHECK(in<std::uint16_t>(device, 0) == 0x0100);
}

TEST_CASE("the reset register resets on bit 2") {
  Events events;
  ResetRegister device(events.sink());
  CHECK(in(device, 0) == 0);
  out8(device, 0, 0x02);
  CHECK(events.seen.empty());
  CHECK(in(device, 0) == 0x02);
  out8(device, 0, 0x06);
  CHECK(events.seen == std::vector<MachineEvent>{{Kind::kReset, 0}});
  out8(device, 0, 0x0e);
  CHECK(events.seen.size() == 2);
}

TEST_CASE("system control port A resets when bit 0 rises") {
  Events events;
  SystemControlA device(events.sink());
  CHECK(in(device, 0) == 0x02);
  out8(device, 0, 0x02);
  CHECK(events.seen.empty());
  out8(device, 0, 0x03);
  CHECK(events.seen == std::vector<MachineEvent>{{Kind::kReset, 0}});
  out8(device, 0, 0x03);  // still high
  CHECK(events.seen.size() == 1);
}

TEST_CASE("the keyboard controller is never busy and pulses the reset line") {
  Events events;
  I8042Stub device(events.sink());
  CHECK((in(device, I8042Stub::kCommandOffset) & 0x03) == 0);  // neither input nor output buffer full
  out8(device, I8042Stub::kCommandOffset, 0xaa);
  out8(device, I8042Stub::kCommandOffset, 0xff);  // pulses nothing
  out8(device, I8042Stub::kDataOffset, 0xfe);
  CHECK(events.seen.empty());
  out8(device, I8042Stub::kCommandOffset, 0xfe);
  CHECK(events.seen == std::vector<MachineEvent>{{Kind::kReset, 0}});
}

TEST_CASE("the debug-exit port reports its value") {
  Events events;
  DebugExit device(events.sink());
  out8(device, 0, 0x10);
  out(device, 0, std::uint32_t{0x12345678});
  out8(device, 1, 0xff);
  CHECK(events.seen == std::vector<MachineEvent>{{Kind::kDebugExit, 0x10}, {Kind::kDebugExit, 0x12345678}});
}

TEST_CASE("the debug console says that it is there and passes bytes on") {
  std::vector<std::byte> text;
  Debugcon device([&](std::span<const std::byte> bytes) { text.insert(text.end(), bytes.begin(), bytes.end()); });
  CHECK(in(device, 0) == 0xe9);
  out8(device, 0, 'a');
  device.write_string(0, 1, bytes_of("bc"));
  CHECK(text == to_vector("abc"));
}

TEST_CASE("no device reads as ones") {
  NoDevice device;
  out8(device, 0, 1);
  CHECK(in<std::uint32_t>(device, 0) == 0xffffffff);
}

}  // namespace
}  // namespace sevisor::devices::test
