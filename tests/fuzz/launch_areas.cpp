// The tables that the launch leaves for the firmware: kernel hashes and secret, in whatever state a hypervisor left
// them.
#include <array>
#include <cstring>
#include <optional>
#include <vector>

#include "check.hpp"
#include "firmware/kernel_hashes.hpp"
#include "firmware/secret_area.hpp"
#include "input.hpp"

using namespace sevisor;

namespace {
constexpr std::array<std::uint8_t, 16> kHashesGuid{0x06, 0xd6, 0x38, 0x94, 0x22, 0x4f, 0xc9, 0x4c,
                                                   0xb4, 0x79, 0xa7, 0x93, 0xd4, 0x11, 0xfd, 0x21};
constexpr std::array<std::uint8_t, 16> kSecretGuid{0x42, 0xf5, 0x74, 0x1e, 0xdd, 0x71, 0x66, 0x4d,
                                                   0x96, 0x3e, 0xef, 0x42, 0x87, 0xff, 0x17, 0x3b};

std::vector<std::byte> area(const std::array<std::uint8_t, 16>& guid, std::span<const std::byte> rest) {
  std::vector<std::byte> bytes(guid.size() + rest.size());
  std::memcpy(bytes.data(), guid.data(), guid.size());
  if (!rest.empty()) std::memcpy(bytes.data() + guid.size(), rest.data(), rest.size());
  return bytes;
}
}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  fuzz::Input input(data, size);
  const auto rest = input.bytes(0xbf0);
  std::optional<firmware::KernelHashes> hashes;
  const auto failure = firmware::read_hashes_table(area(kHashesGuid, rest), hashes);
  FUZZ_CHECK(!hashes || failure == firmware::Failure::kNone);

  std::vector<std::byte> page = area(kSecretGuid, rest);
  const std::size_t length = firmware::secret_table_length(page);
  FUZZ_CHECK(length <= page.size());
  page.resize(4096);
  if (length != 0) firmware::make_setup_data(page, length);
  return 0;
}
