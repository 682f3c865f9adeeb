#include "sev/guid.hpp"

#include <cstring>

namespace sevisor::sev {

Guid Guid::from_bytes(std::span<const std::byte, kSize> stored) noexcept {
  Guid guid;
  std::memcpy(guid.bytes.data(), stored.data(), kSize);
  return guid;
}

std::string Guid::to_string() const {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string text(36, '-');
  for (std::size_t i = 0; i < kSize; ++i) {
    const std::size_t at = detail::kGuidTextPosition[i];
    text[at] = kDigits[bytes[i] >> 4];
    text[at + 1] = kDigits[bytes[i] & 0xf];
  }
  return text;
}

}  // namespace sevisor::sev
