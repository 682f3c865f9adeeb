#include "emulator/irqchip/gsi_routing.hpp"

#include <map>

#include "interrupts/io_apic.hpp"

namespace sevisor::emulator {
namespace {

using interrupts::kIoApicPins;

constexpr std::uint32_t kPicPins = 8;
constexpr std::uint32_t kIsaInterrupts = 16;

bool pin_exists(const GsiRoute& route) {
  switch (route.target) {
    case RouteTarget::kPicMaster:
    case RouteTarget::kPicSlave:
      return route.pin < kPicPins;
    case RouteTarget::kIoApic:
      return route.pin < kIoApicPins;
    case RouteTarget::kMsi:
      return true;
  }
  return false;
}

}  // namespace

std::vector<GsiRoute> default_gsi_routes() {
  std::vector<GsiRoute> routes;
  for (std::uint32_t gsi = 0; gsi < kIoApicPins; ++gsi) {
    routes.push_back({.gsi = gsi, .target = RouteTarget::kIoApic, .pin = gsi});
    if (gsi < kIsaInterrupts) {
      routes.push_back({.gsi = gsi,
                        .target = gsi < kPicPins ? RouteTarget::kPicMaster : RouteTarget::kPicSlave,
                        .pin = gsi % kPicPins});
    }
  }
  return routes;
}

bool gsi_routes_valid(std::span<const GsiRoute> routes) {
  constexpr unsigned kMsiBit = 1U << static_cast<unsigned>(RouteTarget::kMsi);
  std::map<std::uint32_t, unsigned> targets;  // of each GSI: one bit a RouteTarget
  for (const GsiRoute& route : routes) {
    if (route.gsi >= kMaxGsis || !pin_exists(route)) return false;
    const unsigned bit = 1U << static_cast<unsigned>(route.target);
    unsigned& seen = targets[route.gsi];
    if ((seen & (bit | kMsiBit)) != 0 || (bit == kMsiBit && seen != 0)) return false;
    seen |= bit;
  }
  return true;
}

}  // namespace sevisor::emulator
