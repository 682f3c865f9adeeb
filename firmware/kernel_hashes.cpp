#include "firmware/kernel_hashes.hpp"

#include "base/bytes.hpp"
#include "firmware/guid.hpp"

namespace sevisor::firmware {

namespace {
constexpr Guid kTableGuid{0x06, 0xd6, 0x38, 0x94, 0x22, 0x4f, 0xc9, 0x4c,
                          0xb4, 0x79, 0xa7, 0x93, 0xd4, 0x11, 0xfd, 0x21};  // 9438d606-4f22-4cc9-b479-a793d411fd21
constexpr Guid kCommandLineGuid{0xd8, 0x2d, 0xd0, 0x97, 0x20, 0xbd, 0x94, 0x4c, 0xaa,
                                0x78, 0xe7, 0x71, 0x4d, 0x36, 0xab, 0x2a};  // 97d02dd8-bd20-4c94-aa78-e7714d36ab2a
constexpr Guid kInitrdGuid{0x31, 0xf7, 0xba, 0x44, 0x2f, 0x3a, 0xd7, 0x4b,
                           0x9a, 0xf1, 0x41, 0xe2, 0x91, 0x69, 0x78, 0x1d};  // 44baf731-3a2f-4bd7-9af1-41e29169781d
constexpr Guid kKernelGuid{0x37, 0x94, 0xe7, 0x4d, 0xd2, 0xab, 0x7f, 0x42,
                           0xb8, 0x35, 0xd5, 0xb1, 0x72, 0xd2, 0x04, 0x5b};  // 4de79437-abd2-427f-b835-d5b172d2045b

// Table and entries begin alike: GUID, then u16 length, which counts the head.
constexpr std::size_t kHeadBytes = kGuidBytes + 2;
constexpr std::size_t kEntryBytes = kHeadBytes + sizeof(Sha256Digest);
}  // namespace

Failure read_hashes_table(std::span<const std::byte> area, std::optional<KernelHashes>& hashes) noexcept {
  hashes.reset();
  if (area.size() < kHeadBytes || !starts_with(area, kTableGuid)) return Failure::kNone;
  const auto length = load<std::uint16_t>(area.data() + kGuidBytes);
  if (length < kHeadBytes || length > area.size()) return Failure::kHashesTable;

  KernelHashes found;
  struct Entry {
    const Guid& guid;
    Sha256Digest& hash;
    bool seen = false;
  };
  Entry entries[] = {{kCommandLineGuid, found.command_line}, {kInitrdGuid, found.initrd}, {kKernelGuid, found.kernel}};
  auto rest = area.first(length).subspan(kHeadBytes);
  while (!rest.empty()) {
    if (rest.size() < kHeadBytes) return Failure::kHashesTable;
    const auto entry_length = load<std::uint16_t>(rest.data() + kGuidBytes);
    if (entry_length < kHeadBytes || entry_length > rest.size()) return Failure::kHashesTable;
    for (Entry& entry : entries) {
      if (!starts_with(rest, entry.guid)) continue;
      if (entry.seen || entry_length != kEntryBytes) return Failure::kHashesTable;
      entry.seen = true;
      for (std::size_t i = 0; i < entry.hash.size(); ++i) entry.hash[i] = rest[kHeadBytes + i];
    }
    rest = rest.subspan(entry_length);
  }
  for (const Entry& entry : entries) {
    if (!entry.seen) return Failure::kHashesTable;
  }
  hashes = found;
  return Failure::kNone;
}

}  // namespace sevisor::firmware
