#include "devices/pvpanic.hpp"

#include <catch2/catch.hpp>
#include <vector>

#include "tests/devices/helpers.hpp"

namespace sevisor::devices::test {

// QEMU docs/specs/pvpanic: bit 0 a panic, bit 1 a panic with a crash kernel loaded.
TEST_CASE("pvpanic: both events are offered, and the panic that ends the guest is reported") {
  std::vector<MachineEvent> events;
  Pvpanic device([&](const MachineEvent& event) { events.push_back(event); });
  CHECK(in(device, 0) == 3);
  out8(device, 0, 2);
  out8(device, 0, 0);
  CHECK(events.empty());
  out8(device, 0, 1);
  CHECK(events == std::vector<MachineEvent>{{MachineEvent::Kind::kPanic, 0}});
}

}  // namespace sevisor::devices::test
