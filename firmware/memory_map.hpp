// The guest's memory map, as fw_cfg gives it and as the kernel gets it (e820). Freestanding, no heap.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "firmware/failure.hpp"

namespace sevisor::firmware {

// Types of ACPI's system address map (ACPI specification 6.5 section 15.1).
enum class MemoryType : std::uint32_t { kRam = 1, kReserved = 2, kAcpi = 3, kNvs = 4, kUnusable = 5 };

struct MemoryRange {
  std::uint64_t begin = 0;
  std::uint64_t end = 0;  // exclusive
  MemoryType type = MemoryType::kReserved;

  friend constexpr bool operator==(const MemoryRange&, const MemoryRange&) noexcept = default;
};

// Sorted ranges without overlap; neighbours of one type are one range.
class MemoryMap {
 public:
  static constexpr std::size_t kCapacity = 128;  // what boot_params holds

  // Gives [begin, end) the type, whatever it was before. False, and nothing changed, when the map is full.
  [[nodiscard]] bool set(std::uint64_t begin, std::uint64_t end, MemoryType type) noexcept;

  // Reads etc/e820: entries of base u64, length u64, type u32 (QEMU hw/i386/e820_memory_layout.h). RAM goes in first,
  // so that a reservation beats RAM that it overlaps. kMemoryMap when the bytes are no such table.
  [[nodiscard]] Failure add_e820(std::span<const std::byte> table) noexcept;

  // Highest place for `size` bytes of RAM at a multiple of `alignment` (a power of two), all within [low, high).
  [[nodiscard]] std::optional<std::uint64_t> find_top(std::uint64_t size, std::uint64_t alignment, std::uint64_t low,
                                                      std::uint64_t high) const noexcept;
  // Lowest such place.
  [[nodiscard]] std::optional<std::uint64_t> find_bottom(std::uint64_t size, std::uint64_t alignment, std::uint64_t low,
                                                         std::uint64_t high) const noexcept;
  // Whether all of [begin, end) is RAM.
  [[nodiscard]] bool is_ram(std::uint64_t begin, std::uint64_t end) const noexcept;

  [[nodiscard]] std::span<const MemoryRange> ranges() const noexcept { return {ranges_.data(), count_}; }

 private:
  std::array<MemoryRange, kCapacity> ranges_{};
  std::size_t count_ = 0;
};

}  // namespace sevisor::firmware
