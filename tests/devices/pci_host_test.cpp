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
