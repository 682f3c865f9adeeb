#include "firmware/secret_area.hpp"

#include "base/bytes.hpp"
#include "firmware/guid.hpp"

namespace sevisor::firmware {

namespace {
constexpr Guid kTableGuid{0x42, 0xf5, 0x74, 0x1e, 0xdd, 0x71, 0x66, 0x4d,
                          0x96, 0x3e, 0xef, 0x42, 0x87, 0xff, 0x17, 0x3b};
constexpr std::size_t kHeadBytes = kGuidBytes + 4;
constexpr std::size_t kSetupDataHeadBytes = 16;
constexpr std::size_t kSetupDataType = 8;
constexpr std::size_t kSetupDataLength = 12;
}  // namespace

std::size_t secret_table_length(std::span<const std::byte> area) noexcept {
  if (area.size() < kHeadBytes || !starts_with(area, kTableGuid)) return 0;
  const auto length = load<std::uint32_t>(area.data() + kGuidBytes);
  if (length < kHeadBytes || length > area.size()) return 0;
  auto rest = area.first(length).subspan(kHeadBytes);
  while (!rest.empty()) {
    if (rest.size() < kHeadBytes) return 0;
    const auto entry_length = load<std::uint32_t>(rest.data() + kGuidBytes);
    if (entry_length < kHeadBytes || entry_length > rest.size()) return 0;
    rest = rest.subspan(entry_length);
  }
  return length;
}

void make_setup_data(std::span<std::byte> page, std::size_t length) noexcept {
  for (std::size_t i = length; i-- > 0;) page[kSetupDataHeadBytes + i] = page[i];
  for (std::byte& byte : page.subspan(kSetupDataHeadBytes + length)) byte = std::byte{0};
  store<std::uint64_t>(page.data(), 0);
  store<std::uint32_t>(page.data() + kSetupDataType, kSetupDataSecret);
  store<std::uint32_t>(page.data() + kSetupDataLength, static_cast<std::uint32_t>(length));
}

}  // namespace sevisor::firmware
