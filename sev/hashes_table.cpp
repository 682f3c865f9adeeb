#include "sev/hashes_table.hpp"

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "base/bytes.hpp"

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

Digest cmdline_hash(std::string_view cmdline) {
  constexpr std::byte kNul{0};
  Sha256 hash;
  hash.update(std::as_bytes(std::span(cmdline)));
  hash.update(std::span(&kNul, 1));
  return hash.finish();
}

HashesTable make_hashes_table(const KernelHashes& hashes) {
  struct Entry {
    Guid guid;
    const Digest& hash;
  };
  const Entry entries[] = {
      {kCmdlineHashGuid, hashes.cmdline}, {kInitrdHashGuid, hashes.initrd}, {kKernelHashGuid, hashes.kernel}};

  HashesTable table{};
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

HashesTable make_hashes_table(std::span<const std::byte> kernel, std::span<const std::byte> initrd,
                              std::string_view cmdline) {
  return make_hashes_table({cmdline_hash(cmdline), sha256(initrd), sha256(kernel)});
}

}  // namespace sevisor::sev
