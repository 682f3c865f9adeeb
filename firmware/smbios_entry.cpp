#include "base/bytes.hpp"
#include "firmware/smbios.hpp"

namespace sevisor::firmware {

namespace {
// DSP0134 tables 1 and 2.
constexpr char kAnchor64[] = "_SM3_";
constexpr char kAnchor32[] = "_SM_";
constexpr char kIntermediateAnchor[] = "_DMI_";
namespace entry64 {
constexpr std::size_t kChecksum = 0x05;
constexpr std::size_t kMaxSize = 0x0c;
constexpr std::size_t kAddress = 0x10;
constexpr std::size_t kBytes = 0x18;
}  // namespace entry64
namespace entry32 {
constexpr std::size_t kChecksum = 0x04;
constexpr std::size_t kIntermediate = 0x10;
constexpr std::size_t kIntermediateChecksum = 0x15;
constexpr std::size_t kSize = 0x16;
constexpr std::size_t kAddress = 0x18;
constexpr std::size_t kBytes = 0x1f;
}  // namespace entry32

template <std::size_t kBytes>
bool starts_with(std::span<const std::byte> bytes, const char (&text)[kBytes]) noexcept {
  for (std::size_t i = 0; i + 1 < kBytes; ++i) {
    if (bytes[i] != static_cast<std::byte>(text[i])) return false;
  }
  return true;
}

void set_checksum(std::span<std::byte> bytes, std::size_t at) noexcept {
  bytes[at] = std::byte{0};
  unsigned sum = 0;
  for (const std::byte byte : bytes) sum += static_cast<unsigned>(byte);
  bytes[at] = static_cast<std::byte>(0 - sum);
}
}  // namespace

bool complete_smbios_entry(std::span<std::byte> entry, std::uint64_t tables, std::uint32_t table_size) noexcept {
  if (entry.size() == entry64::kBytes && starts_with(entry, kAnchor64)) {
    store(entry.data() + entry64::kMaxSize, table_size);
    store(entry.data() + entry64::kAddress, tables);
    set_checksum(entry, entry64::kChecksum);
    return true;
  }
  if (entry.size() != entry32::kBytes || !starts_with(entry, kAnchor32) || tables >> 32 != 0 || table_size > 0xffff ||
      !starts_with(entry.subspan(entry32::kIntermediate), kIntermediateAnchor)) {
    return false;
  }
  store(entry.data() + entry32::kSize, static_cast<std::uint16_t>(table_size));
  store(entry.data() + entry32::kAddress, static_cast<std::uint32_t>(tables));
  set_checksum(entry.subspan(entry32::kIntermediate), entry32::kIntermediateChecksum - entry32::kIntermediate);
  set_checksum(entry, entry32::kChecksum);
  return true;
}

}  // namespace sevisor::firmware
