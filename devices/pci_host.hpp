// The PCI bus of QEMU's Q35 machine, as far as firmware looks for it: the host bridge, by whose ID OVMF and Linux tell
// the machine, and the LPC bridge with the base of the ACPI registers. Configuration mechanism #1 (PCI Local Bus 3.0,
// 3.2.2.3.2) and memory-mapped configuration (ECAM; PCI Express 3.0, 7.2.2) where the guest has put it with the host
// bridge's PCIEXBAR. OVMF puts it at 0xb0000000, since 2023 at 0xe0000000.
// Intel 3 Series datasheet 317607, 5.1; Intel ICH9 datasheet 316972, 13.1.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <optional>
#include <span>

#include "devices/bus.hpp"
#include "devices/machine_event.hpp"
#include "devices/pci_function.hpp"

namespace sevisor::devices {

inline constexpr std::uint64_t kPciConfigPort = 0xcf8;  // address register; data at 0xcfc

class PciHost final : public Device, public MovableRange {
 public:
  static constexpr std::uint64_t kLength = 8;  // of the ports
  // `reset`: what answers byte accesses to port 0xCF9, which lies under the address register. `events`: told once when
  // firmware looks for memory of System Management Mode (SMRAM), of which there is none.
  explicit PciHost(Device& reset, MachineEventSink events = {});

  void read(std::uint64_t offset, std::span<std::byte> to) override;
  void write(std::uint64_t offset, std::span<const std::byte> from) override;

  // The memory-mapped configuration space, at guest-physical addresses.
  bool read_at(std::uint64_t address, std::span<std::byte> to) override;
  bool write_at(std::uint64_t address, std::span<const std::byte> from) override;

 private:
  struct Place {
    std::uint32_t function;  // bus 15:8, device 7:3, function 2:0
    std::size_t at;          // offset in its configuration space
  };
  // nullptr: nothing there.
  [[nodiscard]] PciFunction* find(const Place& place, std::size_t size) noexcept;
  // What an access at `offset` to the data port is about.
  [[nodiscard]] Place place_of(std::uint64_t offset) const noexcept;
  // What a memory-mapped one is about; nothing: it does not lie whole in the window, or there is none.
  [[nodiscard]] std::optional<Place> mapped_place(std::uint64_t address, std::size_t size) const noexcept;
  void read_register(const Place& place, std::span<std::byte> to, std::unique_lock<std::mutex>& guard);
  void write_register(const Place& place, std::span<const std::byte> from);

  Device& reset_;
  MachineEventSink events_;
  std::mutex lock_;
  bool smram_looked_for_ = false;
  std::uint32_t address_ = 0;
  PciFunction bridge_;
  PciFunction lpc_;
};

}  // namespace sevisor::devices
