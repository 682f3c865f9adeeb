#include "devices/pci_function.hpp"

#include <algorithm>

namespace sevisor::devices {

namespace {
// Type 0 header (PCI Local Bus 3.0, figure 6-1).
constexpr std::size_t kVendorId = 0x00;
constexpr std::size_t kDeviceId = 0x02;
constexpr std::size_t kRevision = 0x08;
constexpr std::size_t kClassCode = 0x0a;
constexpr std::size_t kSubsystemVendorId = 0x2c;
constexpr std::size_t kSubsystemId = 0x2e;
}  // namespace

PciFunction::PciFunction(const Identity& identity) noexcept {
  define<std::uint16_t>(kVendorId, identity.vendor, 0);
  define<std::uint16_t>(kDeviceId, identity.device, 0);
  define<std::uint8_t>(kRevision, identity.revision, 0);
  define<std::uint16_t>(kClassCode, identity.class_code, 0);
  define<std::uint16_t>(kSubsystemVendorId, identity.subsystem_vendor, 0);
  define<std::uint16_t>(kSubsystemId, identity.subsystem, 0);
}

void PciFunction::read(std::size_t at, std::span<std::byte> to) const noexcept {
  std::copy_n(&values_[at], to.size(), to.begin());
}

void PciFunction::write(std::size_t at, std::span<const std::byte> from) noexcept {
  for (std::size_t i = 0; i < from.size(); ++i) {
    const std::byte mask = writable_[at + i];
    values_[at + i] = (values_[at + i] & ~mask) | (from[i] & mask);
  }
}

}  // namespace sevisor::devices
