// Guest addresses as types of their own, so that a virtual one cannot pass for a physical one. Freestanding.
#pragma once

#include <compare>
#include <cstdint>

namespace sevisor {

template <class Tag>
struct Address {
  std::uint64_t value = 0;

  constexpr Address() noexcept = default;
  constexpr explicit Address(std::uint64_t v) noexcept : value(v) {}

  [[nodiscard]] constexpr Address page() const noexcept { return Address(value & ~std::uint64_t{0xfff}); }
  [[nodiscard]] constexpr std::uint64_t offset_in_page() const noexcept { return value & 0xfff; }

  friend constexpr Address operator+(Address a, std::uint64_t n) noexcept { return Address(a.value + n); }
  friend constexpr Address operator-(Address a, std::uint64_t n) noexcept { return Address(a.value - n); }
  friend constexpr std::uint64_t operator-(Address a, Address b) noexcept { return a.value - b.value; }
  // NOLINTNEXTLINE(modernize-use-nullptr): clang-tidy 14 takes the comparison with 0 in it for a pointer.
  friend constexpr auto operator<=>(Address, Address) noexcept = default;
};

using Gpa = Address<struct GuestPhysical>;   // guest-physical, without the C-bit
using Gva = Address<struct GuestVirtual>;    // guest-linear
using Spa = Address<struct SystemPhysical>;  // system-physical: what the encryption tweak is made from

}  // namespace sevisor
