// The identity mapping that the reset page built: 4 GiB, the first 2 MiB of them in 4 KiB pages.
#pragma once

#include <cstdint>

#include "ghcb/guest/vc_handler.hpp"

namespace sevisor::firmware {

inline constexpr std::uint64_t kMappedBytes = std::uint64_t{1} << 32;

// Makes the pages of [begin, end) shared: clears the C-bit of their leaves and flushes the TLB. Both are multiples of 4
// KiB below 2 MiB, and of 2 MiB above. Without SEV it does nothing.
void share_pages(std::uint64_t begin, std::uint64_t end, std::uint64_t c_bit_mask) noexcept;

// Walks the tables.
[[nodiscard]] ghcb::guest::Translation translate(std::uint64_t linear, std::uint64_t c_bit_mask) noexcept;

}  // namespace sevisor::firmware
