// GUIDs as firmware tables store them: the first three fields little-endian, the last eight bytes as written.
// RFC 4122 section 4.1.2; UEFI specification appendix A.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>

namespace sevisor::sev {

struct Guid {
  static constexpr std::size_t kSize = 16;

  std::array<std::uint8_t, kSize> bytes{};  // stored form

  // "00f771de-1a7e-4fcb-890e-68c77e2fb44e", in either case; anything else throws std::invalid_argument, which in a
  // constant is a compile error.
  [[nodiscard]] static constexpr Guid parse(std::string_view text);
  // The caller has checked nothing: the span's extent says it.
  [[nodiscard]] static Guid from_bytes(std::span<const std::byte, kSize> stored) noexcept;

  [[nodiscard]] std::string to_string() const;  // lower case

  friend constexpr bool operator==(const Guid&, const Guid&) noexcept = default;
};

namespace detail {

constexpr std::uint8_t hex_digit(char c) {
  if (c >= '0' && c <= '9') return static_cast<std::uint8_t>(c - '0');
  if (c >= 'a' && c <= 'f') return static_cast<std::uint8_t>(c - 'a' + 10);
  if (c >= 'A' && c <= 'F') return static_cast<std::uint8_t>(c - 'A' + 10);
  throw std::invalid_argument("not a hexadecimal digit in a GUID");
}

// Where the stored byte i stands in the text.
inline constexpr std::array<std::size_t, Guid::kSize> kGuidTextPosition = {6,  4,  2,  0,  11, 9,  16, 14,
                                                                           19, 21, 24, 26, 28, 30, 32, 34};

}  // namespace detail

constexpr Guid Guid::parse(std::string_view text) {
  if (text.size() != 36 || text[8] != '-' || text[13] != '-' || text[18] != '-' || text[23] != '-') {
    throw std::invalid_argument("a GUID has the form 00112233-4455-6677-8899-aabbccddeeff");
  }
  Guid guid;
  for (std::size_t i = 0; i < kSize; ++i) {
    const std::size_t at = detail::kGuidTextPosition[i];
    guid.bytes[i] = static_cast<std::uint8_t>(detail::hex_digit(text[at]) << 4 | detail::hex_digit(text[at + 1]));
  }
  return guid;
}

}  // namespace sevisor::sev
