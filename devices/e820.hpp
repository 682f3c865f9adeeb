// The memory map for fw_cfg's etc/e820 (QEMU hw/i386/e820_memory_layout.h; ACPI 6.4, table 15-6).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/address.hpp"

namespace sevisor::devices {

enum class E820Type : std::uint32_t { kRam = 1, kReserved = 2, kAcpi = 3, kNvs = 4, kUnusable = 5 };

struct E820Entry {
  Gpa base;
  std::uint64_t length = 0;  // bytes
  E820Type type = E820Type::kRam;
};

inline constexpr std::size_t kE820EntrySize = 20;  // u64 base, u64 length, u32 type, little-endian, packed
inline constexpr const char* kE820File = "etc/e820";

// The entries one after another, empty ones left out. Throws Error (kCrash) when one wraps or two overlap.
[[nodiscard]] std::vector<std::byte> encode_e820(std::span<const E820Entry> entries);

}  // namespace sevisor::devices
