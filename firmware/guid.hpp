// GUIDs as they stand in memory: the first three fields little-endian (UEFI 2.10 appendix A).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace sevisor::firmware {

using Guid = std::array<std::uint8_t, 16>;

inline constexpr std::size_t kGuidBytes = 16;

[[nodiscard]] inline bool starts_with(std::span<const std::byte> bytes, const Guid& guid) noexcept {
  if (bytes.size() < guid.size()) return false;
  for (std::size_t i = 0; i < guid.size(); ++i) {
    if (bytes[i] != std::byte{guid[i]}) return false;
  }
  return true;
}

}  // namespace sevisor::firmware
