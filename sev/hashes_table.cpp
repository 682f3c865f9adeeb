#include "sev/hashes_table.hpp"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <string>

#include "base/bytes.hpp"
#include "sev/sha256.hpp"

namespace sevisor::sev {

namespace {

constexpr std::size_t kHeaderSize = Guid::kSize + 2;
constexpr std::size_t kHashEntrySize = kHeaderSize + 32;
static_assert(kHeaderSize + 3 * kHashEntrySize == kHashesTableLength);

void put_header(std::byte* to, const Guid& guid, std::size_t length) {
  std::memcpy(to, guid.bytes.data(), Guid::kSize);
  store(to + Guid::kSize, static_cast<std::uint16_t>(length));
}

}  // namespace

std::array<std::byte, kHashesTableSize> make_hashes_table(std::span<const std::byte> kernel,
                                                          std::span<const std::byte> initrd, std::string_view cmdline) {
  const std::string cmdline_with_nul = std::string(cmdline) + '\0';
  struct Entry {
    Guid guid;
    Digest hash;
  };
  const Entry entries[] = {
      {kCmdlineHashGuid, sha256(std::as_bytes(std::span(cmdline_with_nul)))},
      {kInitrdHashGuid, sha256(initrd)},
      {kKernelHashGuid, sha256(kernel)},
  };

  std::array<std::byte, kHashesTableSize> table{};
  std::byte* at = table.data();
  put_header(at, kHashesTableGuid, kHashesTableLength);
  at += kHeaderSize;
  for (const Entry& entry : entries) {
    put_header(at, entry.guid, kHashEntrySize);
    std::copy(entry.hash.begin(), entry.hash.end(), at + kHeaderSize);
    at += kHashEntrySize;
  }
  return table;
}

}  // namespace sevisor::sev
