// Where the guest's RAM and firmware lie in its physical address space.
#pragma once

#include <cstdint>
#include <vector>

#include "base/address.hpp"

namespace sevisor::vmm {

inline constexpr std::uint64_t kLowRamEnd =
    0xb0000000;  // RAM below; from here to 4 GiB devices and firmware (as Q35 has it)
inline constexpr std::uint64_t kHighRamBase = 0x100000000;
inline constexpr std::uint64_t kFirmwareEnd = 0x100000000;
inline constexpr std::uint64_t kFirmwareMaxSize = 16 << 20;  // bytes; below it lie LAPIC and IOAPIC
inline constexpr std::uint64_t kMinMemory = 32 << 20;        // bytes
inline constexpr std::uint64_t kMaxMemory = std::uint64_t{1} << 40;

struct RamRange {
  Gpa base;
  std::uint64_t size = 0;  // bytes, a multiple of the page size
};

struct MemoryMap {
  std::vector<RamRange> ram;  // the one from 0 on first; the one at 4 GiB only if needed

  [[nodiscard]] std::uint64_t low_size() const noexcept;   // bytes of RAM below 4 GiB
  [[nodiscard]] std::uint64_t high_size() const noexcept;  // bytes of RAM from 4 GiB on
};

// Throws Error (kBadUsage) when the size is out of range or no multiple of the page size.
[[nodiscard]] MemoryMap make_memory_map(std::uint64_t memory);

}  // namespace sevisor::vmm
