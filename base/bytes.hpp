// Reading and writing integers at any alignment, little-endian as x86 and every SEV structure are.
// Freestanding: the firmware uses it too.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

namespace sevisor {

// The caller has checked that sizeof(T) bytes lie at `from`.
template <class T>
[[nodiscard]] inline T load(const void* from) noexcept {
  static_assert(std::is_trivially_copyable_v<T>);
  T value;
  __builtin_memcpy(&value, from, sizeof value);
  return value;
}

// The caller has checked that sizeof(T) bytes lie at `to`.
template <class T>
inline void store(void* to, const T& value) noexcept {
  static_assert(std::is_trivially_copyable_v<T>);
  __builtin_memcpy(to, &value, sizeof value);
}

// Big-endian forms, for fw_cfg (QEMU docs/specs/fw_cfg).
[[nodiscard]] constexpr std::uint16_t swap_bytes(std::uint16_t v) noexcept { return __builtin_bswap16(v); }
[[nodiscard]] constexpr std::uint32_t swap_bytes(std::uint32_t v) noexcept { return __builtin_bswap32(v); }
[[nodiscard]] constexpr std::uint64_t swap_bytes(std::uint64_t v) noexcept { return __builtin_bswap64(v); }

[[nodiscard]] constexpr std::uint64_t align_down(std::uint64_t v, std::uint64_t power_of_two) noexcept {
  return v & ~(power_of_two - 1);
}
// Wraps to 0 when the result does not fit; callers with untrusted input check first.
[[nodiscard]] constexpr std::uint64_t align_up(std::uint64_t v, std::uint64_t power_of_two) noexcept {
  return (v + power_of_two - 1) & ~(power_of_two - 1);
}

inline constexpr std::uint64_t kPageSize = 4096;

}  // namespace sevisor
