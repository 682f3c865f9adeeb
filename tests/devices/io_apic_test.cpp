// Intel 82093AA datasheet, section 3.2.4: redirection entries, and what they send.
#include "devices/io_apic.hpp"

#include <catch2/catch.hpp>
#include <vector>

#include "base/bytes.hpp"

using namespace sevisor;
using devices::IoApic;
using interrupts::Msi;

namespace {

struct Fixture {
  std::vector<Msi> sent;
  std::vector<IoApic::PinMessages> changes;
  bool taken = true;
  IoApic chip{{.send =
                   [this](const Msi& msi) {
                     sent.push_back(msi);
                     return taken;
                   },
               .messages_changed = [this](const IoApic::PinMessages& messages) { changes.push_back(messages); }}};

  void write(std::uint64_t offset, std::uint32_t value) { chip.write(offset, std::as_bytes(std::span(&value, 1))); }
  std::uint32_t read(std::uint64_t offset) {
    std::uint32_t value = 0;
    chip.read(offset, std::as_writable_bytes(std::span(&value, 1)));
    return value;
  }
  void entry(unsigned pin, std::uint32_t low, std::uint32_t high = 0) {
    write(0, 0x11 + 2 * pin);
    write(0x10, high);
    write(0, 0x10 + 2 * pin);
    write(0x10, low);
  }
  std::uint32_t low(unsigned pin) {
    write(0, 0x10 + 2 * pin);
    return read(0x10);
  }
};

constexpr std::uint32_t kMasked = 0x10000;
constexpr std::uint32_t kLevel = 0x8000;
constexpr std::uint32_t kRemoteIrr = 0x4000;

}  // namespace

TEST_CASE_METHOD(Fixture, "an IOAPIC's registers, and accesses of other sizes than 32 bits") {
  write(0, 1);
  CHECK(read(0x10) == 0x170011);  // 24 pins
  std::byte bytes[8] = {};
  chip.read(0x10, std::span(bytes).first(1));
  CHECK(bytes[0] == std::byte{0x11});
  chip.read(0x10, bytes);
  CHECK(load<std::uint64_t>(bytes) == 0x170011);
  CHECK(low(3) == kMasked);
  CHECK(changes.empty());
}

TEST_CASE_METHOD(Fixture, "an edge is sent once, by the entry's destination and mode") {
  entry(4, 0x931, 0x0300'0000);  // lowest priority, logical, destination 3
  REQUIRE(changes.size() == 1);
  CHECK(changes[0][4] == Msi{.address = 0xfee03004, .data = 0x131});
  CHECK_FALSE(changes[0][5]);
  chip.set_line(4, true);
  chip.set_line(4, true);
  CHECK(sent == std::vector<Msi>{{.address = 0xfee03004, .data = 0x131}});
  chip.set_line(4, false);
  chip.set_line(4, true);
  CHECK(sent.size() == 2);
  chip.set_line(5, true);
  CHECK(sent.size() == 2);
}

TEST_CASE_METHOD(Fixture, "a level is sent until it goes, each time after its end") {
  entry(9, kLevel | 0x41);
  chip.set_line(9, true);
  CHECK(sent == std::vector<Msi>{{.address = 0xfee00000, .data = 0xc041}});
  CHECK((low(9) & kRemoteIrr) != 0);
  chip.end_of_interrupt(0x42);
  CHECK(sent.size() == 1);
  chip.end_of_interrupt(0x41);
  CHECK(sent.size() == 2);
  chip.set_line(9, false);
  chip.end_of_interrupt(0x41);
  CHECK(sent.size() == 2);
  CHECK((low(9) & kRemoteIrr) == 0);
}

TEST_CASE_METHOD(Fixture, "a level that nobody took is sent again when the entry is written") {
  taken = false;
  entry(9, kLevel | 0x41);
  chip.set_line(9, true);
  CHECK((low(9) & kRemoteIrr) == 0);
  taken = true;
  sent.clear();
  entry(9, kLevel | 0x41);
  CHECK(sent.size() == 1);
  CHECK((low(9) & kRemoteIrr) != 0);
}

TEST_CASE_METHOD(Fixture, "masking keeps the message whose end may be yet to come") {
  entry(9, kLevel | 0x41);
  chip.set_line(9, true);
  changes.clear();
  entry(9, kMasked | kLevel | 0x41);
  CHECK(changes.empty());
  entry(9, kMasked | kLevel | 0x51);
  CHECK(changes.empty());
  entry(9, kLevel | 0x51);
  REQUIRE(changes.size() == 1);
  CHECK(changes[0][9] == Msi{.address = 0xfee00000, .data = 0xc051});
}
