#include "emulator/irqchip/gsi_routing.hpp"

#include <algorithm>
#include <catch2/catch.hpp>

using namespace sevisor::emulator;

TEST_CASE("The default routes are the kernel's") {
  const auto routes = default_gsi_routes();
  CHECK(routes.size() == 24 + 16);
  CHECK(gsi_routes_valid(routes));
  const auto has = [&](const GsiRoute& route) {
    return std::find(routes.begin(), routes.end(), route) != routes.end();
  };
  CHECK(has({.gsi = 0, .target = RouteTarget::kIoApic, .pin = 0}));
  CHECK(has({.gsi = 0, .target = RouteTarget::kPicMaster, .pin = 0}));
  CHECK(has({.gsi = 12, .target = RouteTarget::kPicSlave, .pin = 4}));
  CHECK(has({.gsi = 23, .target = RouteTarget::kIoApic, .pin = 23}));
}

TEST_CASE("Routes that KVM refuses") {
  const GsiRoute pin{.gsi = 5, .target = RouteTarget::kIoApic, .pin = 5};
  const GsiRoute other_pin{.gsi = 5, .target = RouteTarget::kIoApic, .pin = 6};
  const GsiRoute pic{.gsi = 5, .target = RouteTarget::kPicMaster, .pin = 5};
  const GsiRoute msi{.gsi = 5, .target = RouteTarget::kMsi, .msi_address = 0xfee00000, .msi_data = 0x31};
  using Routes = std::vector<GsiRoute>;
  CHECK(gsi_routes_valid(Routes{}));
  CHECK(gsi_routes_valid(Routes{pin, pic}));
  CHECK(gsi_routes_valid(Routes{msi}));
  CHECK_FALSE(gsi_routes_valid(Routes{pin, other_pin}));
  CHECK_FALSE(gsi_routes_valid(Routes{pin, msi}));
  CHECK_FALSE(gsi_routes_valid(Routes{msi, pin}));
  CHECK_FALSE(gsi_routes_valid(Routes{msi, msi}));
  CHECK_FALSE(gsi_routes_valid(Routes{{.gsi = 4096, .target = RouteTarget::kIoApic, .pin = 0}}));
  CHECK_FALSE(gsi_routes_valid(Routes{{.gsi = 0, .target = RouteTarget::kIoApic, .pin = 24}}));
  CHECK_FALSE(gsi_routes_valid(Routes{{.gsi = 0, .target = RouteTarget::kPicMaster, .pin = 8}}));
}
