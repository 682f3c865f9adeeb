// The PCI bus of QEMU's Q35 machine, as far as firmware looks for it: the host bridge, by whose ID OVMF and Linux tell
// the machine, and the LPC bridge with the base of the ACPI registers. Configuration mechanism #1 (PCI Local Bus 3.0,
// 3.2.2.3.2) and, once the guest has turned it on, memory-mapped configuration (PCI Express 3.0, 7.2.2).
// Intel 3 Series datasheet 317607, 5.1; Intel ICH9 datasheet 316972, 13.1.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <span>

#include "devices/bus.hpp"
#include "devices/machine_event.hpp"
#include "devices/pci_function.hpp"

namespace sevisor::devices {

inline constexpr std::uint64_t kPciConfigPort = 0xcf8;  // address register; data at 0xcfc
// The memory-mapped configuration space, at the one place where it can be: OVMF's choice on Q35.
inline constexpr std::uint64_t kPciEcamBase = 0xb0000000;
inline constexpr std::uint64_t kPciEcamSize = 0x10000000;  // bytes: 256 buses

class PciHost final : public Device {
 public:
  static constexpr std::uint64_t kLength = 8;  // of the ports, at offset 0
  static constexpr std::uint64_t kEcamOffset = kPciEcamSize;
  // `reset`: what answers byte accesses to port 0xCF9, which lies under the address register. `events`: told once when
  // firmware looks for memory of System Management Mode (SMRAM), of which there is none.
  explicit PciHost(Device& reset, MachineEventSink events = {});

  void read(std::uint64_t offset, std::span<std::byte> to) override;
  void write(std::uint64_t offset, std::span<const std::byte> from) override;

 private:
  struct Place {
    std::uint32_t function;  // bus 15:8, device 7:3, function 2:0
    std::size_t at;          // offset in its configuration space
  };
  // nullptr: nothing there.
  [[nodiscard]] PciFunction* find(const Place& place, std::size_t size) noexcept;
  // What an access at `offset` to the data port or the memory-mapped space is about.
  [[nodiscard]] Place place_of(std::uint64_t offset) const noexcept;
  [[nodiscard]] bool ecam_enabled() const noexcept;

  Device& reset_;
  MachineEventSink events_;
  std::mutex lock_;
  bool smram_looked_for_ = false;
  std::uint32_t address_ = 0;
  PciFunction bridge_;
  PciFunction lpc_;
};

}  // namespace sevisor::devices
