// PCI configuration mechanism #1 with the host bridge of QEMU's Q35 and, so far, nothing behind it (PCI Local Bus 3.0,
// 3.2.2.3.2; Intel 3 Series datasheet 317607, 5.1). Firmware and Linux tell the machine by the bridge's ID.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>

#include "devices/bus.hpp"

namespace sevisor::devices {

inline constexpr std::uint64_t kPciConfigPort = 0xcf8;  // address register; data at 0xcfc

class PciHost final : public Device {
 public:
  static constexpr std::uint64_t kLength = 8;
  // `reset`: what answers byte accesses to port 0xCF9, which lies under the address register.
  explicit PciHost(Device& reset) noexcept;

  void read(std::uint64_t offset, std::span<std::byte> to) override;
  void write(std::uint64_t offset, std::span<const std::byte> from) override;

 private:
  Device& reset_;
  std::atomic<std::uint32_t> address_ = 0;
  std::array<std::byte, 256> bridge_{};  // configuration space; read-only
};

}  // namespace sevisor::devices
