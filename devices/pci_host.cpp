#include "devices/pci_host.hpp"

#include <algorithm>

#include "base/bytes.hpp"

namespace sevisor::devices {

namespace {
constexpr std::uint64_t kResetOffset = 1;  // 0xCF9
constexpr std::uint64_t kDataOffset = 4;   // 0xCFC to 0xCFF

// The address register: bit 31 enables, bus 23:16, device 15:11, function 10:8, register 7:2.
constexpr std::uint32_t kEnable = 1U << 31;
constexpr std::uint32_t kFunctionMask = 0x00ffff00;  // bus, device and function
constexpr std::uint32_t kRegisterMask = 0xfc;
constexpr std::uint32_t kImplemented = kEnable | kFunctionMask | kRegisterMask;

// Type 0 header (PCI Local Bus 3.0, figure 6-1).
constexpr std::size_t kVendorId = 0x00;
constexpr std::size_t kDeviceId = 0x02;
constexpr std::size_t kClassCode = 0x0a;
constexpr std::size_t kSubsystemVendorId = 0x2c;
constexpr std::size_t kSubsystemId = 0x2e;
constexpr std::uint16_t kIntel = 0x8086;
constexpr std::uint16_t kQ35HostBridge = 0x29c0;
constexpr std::uint16_t kHostBridgeClass = 0x0600;
constexpr std::uint16_t kRedHat = 0x1af4;  // as QEMU's machines have it
constexpr std::uint16_t kQemuMachine = 0x1100;
}  // namespace

PciHost::PciHost(Device& reset) noexcept : reset_(reset) {
  store(&bridge_[kVendorId], kIntel);
  store(&bridge_[kDeviceId], kQ35HostBridge);
  store(&bridge_[kClassCode], kHostBridgeClass);
  store(&bridge_[kSubsystemVendorId], kRedHat);
  store(&bridge_[kSubsystemId], kQemuMachine);
}

void PciHost::read(std::uint64_t offset, std::span<std::byte> to) {
  std::ranges::fill(to, std::byte{0xff});
  if (offset == kResetOffset && to.size() == 1) return reset_.read(0, to);
  const std::uint32_t address = address_.load(std::memory_order_relaxed);
  if (offset == 0 && to.size() == sizeof address) return store(to.data(), address);
  if (offset < kDataOffset || (address & kEnable) == 0 || (address & kFunctionMask) != 0) return;
  const std::size_t at = (address & kRegisterMask) + (offset - kDataOffset);
  std::copy_n(&bridge_[at], to.size(), to.begin());
}

void PciHost::write(std::uint64_t offset, std::span<const std::byte> from) {
  if (offset == kResetOffset && from.size() == 1) return reset_.write(0, from);
  if (offset == 0 && from.size() == sizeof(std::uint32_t)) {
    address_.store(load<std::uint32_t>(from.data()) & kImplemented, std::memory_order_relaxed);
  }
}

}  // namespace sevisor::devices
