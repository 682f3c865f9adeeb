// Where a global system interrupt goes (Linux Documentation/virt/kvm/api.rst, KVM_SET_GSI_ROUTING).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace sevisor::emulator {

inline constexpr std::uint32_t kMaxGsis = 4096;  // KVM_MAX_IRQ_ROUTES

// Values of kvm_irq_routing_irqchip.irqchip, and one for MSIs.
enum class RouteTarget : std::uint8_t { kPicMaster = 0, kPicSlave = 1, kIoApic = 2, kMsi = 3 };

struct GsiRoute {
  std::uint32_t gsi = 0;  // below kMaxGsis
  RouteTarget target = RouteTarget::kIoApic;
  std::uint32_t pin = 0;          // of the chip
  std::uint64_t msi_address = 0;  // kMsi only
  std::uint32_t msi_data = 0;

  friend bool operator==(const GsiRoute&, const GsiRoute&) = default;
};

// What KVM_CREATE_IRQCHIP sets up: GSIs 0..15 to the PIC pair and the IOAPIC pin of the same number, 16..23 to the
// IOAPIC alone.
[[nodiscard]] std::vector<GsiRoute> default_gsi_routes();

// False as KVM refuses (EINVAL): a GSI or pin out of range, two routes of one GSI to the same chip, an MSI beside
// another route.
[[nodiscard]] bool gsi_routes_valid(std::span<const GsiRoute> routes);

}  // namespace sevisor::emulator
