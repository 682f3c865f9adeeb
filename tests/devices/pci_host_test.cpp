#include "devices/pci_host.hpp"

#include <catch2/catch.hpp>
#include <vector>

#include "devices/power.hpp"
#include "tests/devices/helpers.hpp"

namespace sevisor::devices::test {
namespace {

struct Fixture {
  std::vector<MachineEvent> events;
  ResetRegister reset{[this](const MachineEvent& event) { events.push_back(event); }};
  PciHost host{reset};
  void select(std::uint32_t address) { out(host, 0, address); }
};

TEST_CASE_METHOD(Fixture, "PCI: mechanism #1 is there and finds the Q35 host bridge") {
  select(0x80000000);  // Linux's probe reads this back
  CHECK(in<std::uint32_t>(host, 0) == 0x80000000);
  CHECK(in<std::uint32_t>(host, 4) == 0x29c08086);
  CHECK(in<std::uint16_t>(host, 6) == 0x29c0);  // OVMF tells the machine by this
  select(0x80000008);
  CHECK(in<std::uint16_t>(host, 6) == 0x0600);
  CHECK(in(host, 7) == 0x06);
  select(0x8000000c);
  CHECK(in(host, 6) == 0);  // header type: one function
  select(0x800000fc);
  CHECK(in<std::uint32_t>(host, 4) == 0);
}

TEST_CASE_METHOD(Fixture, "PCI: the LPC bridge is QEMU's ICH9") {
  select(0x8000f800);
  CHECK(in<std::uint32_t>(host, 4) == 0x29188086);
  select(0x8000f808);
  CHECK(in<std::uint32_t>(host, 4) == 0x06010002);  // class 0601, revision 2
  select(0x8000f80c);
  CHECK(in(host, 6) == 0);
  select(0x8000f82c);
  CHECK(in<std::uint32_t>(host, 4) == 0x11001af4);

  // The base of the ACPI registers: bit 0 stays, the lower bits do not exist.
  select(0x8000f840);
  CHECK(in<std::uint32_t>(host, 4) == 1);
  out(host, 4, std::uint32_t{0x601});
  CHECK(in<std::uint32_t>(host, 4) == 0x601);
  out(host, 4, std::uint32_t{0xffffffff});
  CHECK(in<std::uint32_t>(host, 4) == 0xff81);
  select(0x8000f844);
  out8(host, 4, 0x80);
  CHECK(in(host, 4) == 0x80);
  select(0x8000f8f0);
  out(host, 4, std::uint32_t{0xfed1c001});
  CHECK(in<std::uint32_t>(host, 4) == 0xfed1c001);
  select(0x8000f860);
  CHECK(in<std::uint32_t>(host, 4) == 0x80808080);
  out8(host, 5, 0x0a);
  CHECK(in<std::uint32_t>(host, 4) == 0x80800a80);
  // No BARs.
  select(0x8000f810);
  out(host, 4, std::uint32_t{0xffffffff});
  CHECK(in<std::uint32_t>(host, 4) == 0);
}

TEST_CASE_METHOD(Fixture, "PCI: nothing else answers") {
  for (const std::uint32_t address : {0x80000800U, 0x80000100U, 0x80010000U, 0x00000000U}) {
    select(address);
    CHECK(in<std::uint32_t>(host, 4) == 0xffffffff);
    out(host, 4, std::uint32_t{0});
  }
  select(0x80000000);
  out(host, 4, std::uint32_t{0x12345678});  // the bridge's registers are read-only
  CHECK(in<std::uint32_t>(host, 4) == 0x29c08086);
}

// Intel 3 Series datasheet, 5.1.25 and 5.1.26: SMRAM and ESMRAMC at 0x9d and 0x9e of the host bridge.
TEST_CASE_METHOD(Fixture, "PCI: who reads the host bridge's ESMRAMC by itself needs SMM, and is told of once") {
  PciHost watched{reset, [this](const MachineEvent& event) { events.push_back(event); }};
  const auto read_byte = [&](std::uint32_t address, std::uint64_t byte) {
    out(watched, 0, address);
    return in(watched, 4 + byte);
  };
  out(watched, 0, std::uint32_t{0x8000009c});
  CHECK(in<std::uint32_t>(watched, 4) == 0);  // as lspci does
  CHECK(in<std::uint16_t>(watched, 6) == 0);
  CHECK(read_byte(0x8000009c, 1) == 0);
  CHECK(read_byte(0x8000f89c, 2) == 0);  // the LPC bridge
  CHECK(read_byte(0x0000009c, 2) == 0xff);
  CHECK(events.empty());
  CHECK(read_byte(0x8000009c, 2) == 0);
  CHECK(read_byte(0x8000009c, 2) == 0);
  CHECK(events == std::vector<MachineEvent>{{MachineEvent::Kind::kNeedsSmm, 0}});
  select(0x8000009c);
  CHECK(in(host, 6) == 0);  // without anybody to tell
}

TEST_CASE_METHOD(Fixture, "PCI: the address register takes whole double words only") {
  select(0xffffffff);
  CHECK(in<std::uint32_t>(host, 0) == 0x80fffffc);
  out(host, 0, std::uint16_t{0});
  out8(host, 0, 0);
  out8(host, 3, 0);
  CHECK(in<std::uint32_t>(host, 0) == 0x80fffffc);
  CHECK(in<std::uint16_t>(host, 0) == 0xffff);
}

TEST_CASE_METHOD(Fixture, "PCI: a byte to 0xCF9 is the reset register's, a double word over it is not") {
  select(0x00000600);
  CHECK(events.empty());
  out8(host, 1, 0x02);
  CHECK(in(host, 1) == 0x02);
  CHECK(events.empty());
  out8(host, 1, 0x06);
  CHECK(events == std::vector<MachineEvent>{{MachineEvent::Kind::kReset, 0}});
}

}  // namespace
}  // namespace sevisor::devices::test
