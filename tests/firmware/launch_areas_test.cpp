// What the launch leaves for the firmware: the table of kernel hashes and the secret.
#include <algorithm>
#include <catch2/catch.hpp>
#include <cstring>
#include <vector>

#include "base/bytes.hpp"
#include "firmware/kernel_hashes.hpp"
#include "firmware/secret_area.hpp"
#include "sev/guid.hpp"
#include "sev/hashes_table.hpp"

namespace {
using namespace sevisor;
using firmware::Failure;

constexpr std::size_t kAreaBytes = 0x400;
constexpr std::size_t kTableLengthAt = 16;
constexpr std::size_t kFirstEntry = 18;
constexpr std::size_t kEntryBytes = 50;

sev::Digest digest_of(std::uint8_t seed) {
  sev::Digest digest;
  for (std::size_t i = 0; i < digest.size(); ++i) digest[i] = static_cast<std::byte>(seed + i);
  return digest;
}

std::vector<std::byte> area_with_table() {
  const auto table = sev::make_hashes_table({.cmdline = digest_of(1), .initrd = digest_of(2), .kernel = digest_of(3)});
  std::vector<std::byte> area(kAreaBytes, std::byte{0xa5});
  std::ranges::copy(table, area.begin());
  return area;
}

Failure read(std::span<const std::byte> area, std::optional<firmware::KernelHashes>& hashes) {
  return firmware::read_hashes_table(area, hashes);
}
Failure read(std::span<const std::byte> area) {
  std::optional<firmware::KernelHashes> hashes;
  const Failure failure = read(area, hashes);
  if (failure != Failure::kNone) CHECK_FALSE(hashes);
  return failure;
}

TEST_CASE("the table that the VMM makes is read", "[firmware][hashes]") {
  std::optional<firmware::KernelHashes> hashes;
  REQUIRE(read(area_with_table(), hashes) == Failure::kNone);
  REQUIRE(hashes);
  CHECK(std::ranges::equal(hashes->command_line, digest_of(1)));
  CHECK(std::ranges::equal(hashes->initrd, digest_of(2)));
  CHECK(std::ranges::equal(hashes->kernel, digest_of(3)));
}

TEST_CASE("an area without the table's GUID has no table", "[firmware][hashes]") {
  std::optional<firmware::KernelHashes> hashes;
  CHECK(read(std::vector<std::byte>(kAreaBytes), hashes) == Failure::kNone);
  CHECK_FALSE(hashes);
  auto area = area_with_table();
  area[0] ^= std::byte{1};
  CHECK(read(area, hashes) == Failure::kNone);
  CHECK_FALSE(hashes);
}

TEST_CASE("a malformed table of hashes is refused", "[firmware][hashes]") {
  auto area = area_with_table();
  const auto set_length = [&](std::size_t at, std::uint16_t length) { store(area.data() + at, length); };
  SECTION("length shorter than its head") { set_length(kTableLengthAt, 17); }
  SECTION("no entries") { set_length(kTableLengthAt, 18); }
  SECTION("length beyond the area") { set_length(kTableLengthAt, kAreaBytes + 1); }
  SECTION("cut within an entry") { set_length(kTableLengthAt, 167); }
  SECTION("an entry less") { set_length(kTableLengthAt, 168 - kEntryBytes); }
  SECTION("rubbish behind the entries") { set_length(kTableLengthAt, 180); }
  SECTION("entry of length 0, which must not be walked for ever") { set_length(kFirstEntry + 16, 0); }
  SECTION("entry of another length") { set_length(kFirstEntry + 16, 51); }
  SECTION("an entry that stands twice") {
    std::memcpy(area.data() + kFirstEntry, area.data() + kFirstEntry + kEntryBytes, kEntryBytes);
  }
  SECTION("an entry with another GUID") { area[kFirstEntry] ^= std::byte{1}; }
  CHECK(read(area) == Failure::kHashesTable);
}

TEST_CASE("entries may come in any order, with others between", "[firmware][hashes]") {
  auto area = area_with_table();
  std::swap_ranges(area.data() + kFirstEntry, area.data() + kFirstEntry + kEntryBytes,
                   area.data() + kFirstEntry + 2 * kEntryBytes);
  store<std::uint16_t>(area.data() + kTableLengthAt, 168 + 20);
  store<std::uint16_t>(area.data() + 168 + 16, 20);
  std::optional<firmware::KernelHashes> hashes;
  REQUIRE(read(area, hashes) == Failure::kNone);
  REQUIRE(hashes);
  CHECK(std::ranges::equal(hashes->kernel, digest_of(3)));
  CHECK(std::ranges::equal(hashes->command_line, digest_of(1)));
}

TEST_CASE("areas too small for a table have none", "[firmware][hashes]") {
  const auto area = area_with_table();
  for (std::size_t size = 0; size < sev::kHashesTableLength; ++size) {
    std::optional<firmware::KernelHashes> hashes;
    CHECK(read(std::span(area).first(size), hashes) == (size < 18 ? Failure::kNone : Failure::kHashesTable));
    CHECK_FALSE(hashes);
  }
}

// --- Secret ---

constexpr sev::Guid kSecretGuid = sev::Guid::parse("1e74f542-71dd-4d66-963e-ef4287ff173b");
constexpr std::size_t kPage = 4096;
constexpr std::size_t kSecretArea = 0xc00;

// One entry of `data` bytes of 0x5e.
std::vector<std::byte> secret_page(std::uint32_t data) {
  std::vector<std::byte> page(kPage, std::byte{0xa5});
  std::memcpy(page.data(), &kSecretGuid, sizeof kSecretGuid);
  store<std::uint32_t>(page.data() + 16, 20 + 20 + data);
  store<std::uint32_t>(page.data() + 20 + 16, 20 + data);
  std::fill_n(page.begin() + 40, data, std::byte{0x5e});
  return page;
}
std::size_t length_of(const std::vector<std::byte>& page) {
  return firmware::secret_table_length(std::span(page).first(kSecretArea));
}

TEST_CASE("a secret becomes an item of setup_data", "[firmware][secret]") {
  const auto data = GENERATE(0U, 1U, 33U, static_cast<unsigned>(kSecretArea - 40));
  auto page = secret_page(data);
  const auto before = page;
  const std::size_t length = length_of(page);
  REQUIRE(length == 40 + data);
  firmware::make_setup_data(page, length);
  CHECK(load<std::uint64_t>(page.data()) == 0);
  CHECK(load<std::uint32_t>(page.data() + 8) == firmware::kSetupDataSecret);
  CHECK(load<std::uint32_t>(page.data() + 12) == length);
  CHECK(std::equal(page.begin() + 16, page.begin() + 16 + static_cast<std::ptrdiff_t>(length), before.begin()));
  CHECK(std::all_of(page.begin() + 16 + static_cast<std::ptrdiff_t>(length), page.end(),
                    [](std::byte byte) { return byte == std::byte{0}; }));
}

TEST_CASE("a malformed table of secrets is none", "[firmware][secret]") {
  auto page = secret_page(8);
  SECTION("another GUID") { page[3] ^= std::byte{1}; }
  SECTION("longer than the area") { store<std::uint32_t>(page.data() + 16, kSecretArea + 1); }
  SECTION("as long as a number goes") { store<std::uint32_t>(page.data() + 16, 0xffffffff); }
  SECTION("shorter than its head") { store<std::uint32_t>(page.data() + 16, 19); }
  SECTION("entry of length 0") { store<std::uint32_t>(page.data() + 36, 0); }
  SECTION("entry longer than the table") { store<std::uint32_t>(page.data() + 36, 29); }
  SECTION("rubbish behind the entries") { store<std::uint32_t>(page.data() + 16, 49); }
  CHECK(length_of(page) == 0);
}
}  // namespace
