// The identity mapping that the reset page built: 4 GiB in 2 MiB pages, the first 2 MiB of them in 4 KiB pages; and
// what is added to it above. APM vol. 2 section 5.3 (long mode), section 15.34.4 (the C-bit).
#pragma once

#include <cstdint>

#include "firmware/failure.hpp"
#include "firmware/memory_map.hpp"
#include "ghcb/guest/vc_handler.hpp"

namespace sevisor::firmware {

inline constexpr std::uint64_t kMappedBytes = std::uint64_t{1} << 32;

// Makes the pages of [begin, end) shared: clears the C-bit of their leaves and flushes the TLB. Both are multiples of 4
// KiB below 2 MiB, and of 2 MiB above. Without SEV it does nothing.
void share_pages(std::uint64_t begin, std::uint64_t end, std::uint64_t c_bit_mask) noexcept;

// Maps RAM from 4 GiB on, up to 512 GiB, for a guest that starts with these tables: in 1 GiB pages when CPUID has them,
// else in 2 MiB pages, whose tables the map then reserves. All of it private.
[[nodiscard]] Failure map_high_memory(MemoryMap& map, std::uint64_t c_bit_mask) noexcept;

// Walks the tables, below 4 GiB.
[[nodiscard]] ghcb::guest::Translation translate(std::uint64_t linear, std::uint64_t c_bit_mask) noexcept;

}  // namespace sevisor::firmware
