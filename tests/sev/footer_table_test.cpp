// Images made here, byte by byte, as OVMF's reset vector lays them out.
#include "sev/footer_table.hpp"

#include <catch2/catch.hpp>
#include <cstdint>
#include <string>
#include <vector>

#include "base/error.hpp"

using namespace sevisor;
using namespace sevisor::sev;

namespace {

using Bytes = std::vector<std::byte>;

void put(Bytes& to, std::uint64_t value, unsigned size) {
  for (unsigned i = 0; i < size; ++i) to.push_back(static_cast<std::byte>(value >> (8 * i)));
}

void put_guid(Bytes& to, const Guid& guid) {
  for (const std::uint8_t b : guid.bytes) to.push_back(std::byte{b});
}

Bytes words(std::initializer_list<std::uint32_t> values) {
  Bytes bytes;
  for (const std::uint32_t value : values) put(bytes, value, 4);
  return bytes;
}

struct TestEntry {
  Guid guid;
  Bytes data;
  int length_error = 0;  // added to the true length
};

// `lead` bytes, the entries, the footer, 32 bytes of reset code.
Bytes image_with(const std::vector<TestEntry>& entries, int footer_length_error = 0, std::size_t lead = 256) {
  Bytes image(lead);
  for (const TestEntry& entry : entries) {
    image.insert(image.end(), entry.data.begin(), entry.data.end());
    const int length = static_cast<int>(entry.data.size()) + 18 + entry.length_error;
    put(image, static_cast<std::uint64_t>(length), 2);
    put_guid(image, entry.guid);
  }
  const auto total = static_cast<int>(image.size() - lead) + 18 + footer_length_error;
  put(image, static_cast<std::uint64_t>(total), 2);
  put_guid(image, kFooterGuid);
  image.resize(image.size() + kFooterToEnd);
  return image;
}

std::string refusal_of(const Bytes& image) {
  try {
    (void)parse_footer_table(image);
  } catch (const Error& error) {
    CHECK(error.exit_code() == ExitCode::kBadUsage);
    CHECK_FALSE(error.advice().empty());
    return error.came_back();
  }
  return {};
}

}  // namespace

TEST_CASE("a table with every kind of entry is read") {
  const FooterTable table = parse_footer_table(image_with({
      {kSnpMetadataGuid, words({0x52c})},
      {kHashesAreaGuid, words({0x810c00, 0x400})},
      {kSecretAreaGuid, words({0x810000, 0xc00})},
      {kSevEsResetGuid, words({0x0080b004})},
  }));
  CHECK(table.entries.size() == 4);
  CHECK(table.ap_reset_address() == 0x0080b004);
  CHECK(require_ap_reset_address(table) == 0x0080b004);
  REQUIRE(table.secret_area());
  CHECK(table.secret_area()->base == 0x810000);
  CHECK(table.secret_area()->size == 0xc00);
  CHECK(require_hashes_area(table).base == 0x810c00);
  REQUIRE(table.find(kSnpMetadataGuid) != nullptr);
  CHECK(table.find(kSnpMetadataGuid)->offset == 256);
}

TEST_CASE("entries of unknown kinds are kept and do no harm") {
  const Guid unknown = Guid::parse("00000000-0000-0000-0000-000000000001");
  const FooterTable table = parse_footer_table(image_with({{unknown, {}}, {kSevEsResetGuid, words({0x1000})}}));
  CHECK(table.ap_reset_address() == 0x1000);
  REQUIRE(table.find(unknown) != nullptr);
  CHECK(table.find(unknown)->data.empty());
}

TEST_CASE("an area with base 0 means that there is none") {
  const FooterTable table =
      parse_footer_table(image_with({{kHashesAreaGuid, words({0, 0})}, {kSecretAreaGuid, words({0, 0})}}));
  CHECK_FALSE(table.hashes_area());
  CHECK_FALSE(table.secret_area());
  CHECK_THROWS_AS(require_hashes_area(table), Error);
}

TEST_CASE("a hashes area that cannot hold the table is refused") {
  CHECK_THROWS_AS(require_hashes_area(parse_footer_table(image_with({{kHashesAreaGuid, words({0x1000, 175})}}))),
                  Error);
  CHECK_THROWS_AS(require_hashes_area(parse_footer_table(image_with({{kHashesAreaGuid, words({0x1008, 176})}}))),
                  Error);
  CHECK_NOTHROW(require_hashes_area(parse_footer_table(image_with({{kHashesAreaGuid, words({0x1000, 176})}}))));
}

TEST_CASE("a reset block that is missing or empty is told apart") {
  CHECK_THROWS_AS(require_ap_reset_address(parse_footer_table(image_with({}))), Error);
  const FooterTable empty = parse_footer_table(image_with({{kSevEsResetGuid, words({0})}}));
  CHECK(empty.ap_reset_address() == 0U);
  CHECK_THROWS_AS(require_ap_reset_address(empty), Error);
}

TEST_CASE("firmware older than the table has the reset block alone") {
  Bytes image(64);
  put(image, 0x00801004, 4);
  put(image, 22, 2);
  put_guid(image, kSevEsResetGuid);
  image.resize(image.size() + kFooterToEnd);
  const FooterTable table = parse_footer_table(image);
  CHECK(table.bare_reset_block);
  CHECK(table.ap_reset_address() == 0x00801004);
}

TEST_CASE("malformed tables are refused with what is wrong") {
  const std::vector<TestEntry> reset = {{kSevEsResetGuid, words({0x1000})}};

  CHECK(refusal_of({}).find("too few") != std::string::npos);
  CHECK(refusal_of(Bytes(49)).find("too few") != std::string::npos);
  CHECK(refusal_of(Bytes(4096)).find("there is none") != std::string::npos);
  // The total is shorter than the footer, larger than the image, cuts into an entry, leaves crumbs before the first
  // one.
  CHECK(refusal_of(image_with(reset, -23)).find("says it has 17 bytes") != std::string::npos);
  CHECK(refusal_of(image_with(reset, 4096)).find("are possible") != std::string::npos);
  CHECK(refusal_of(image_with(reset, -1)).find("says it has 22 bytes, 18 to 21") != std::string::npos);
  CHECK(refusal_of(image_with(reset, 1)).find("1 bytes are left") != std::string::npos);
  CHECK(refusal_of(image_with(reset, 0, 0)).empty());
  CHECK(refusal_of(image_with(reset, 1, 0)).find("are possible") != std::string::npos);
  // An entry's length.
  CHECK(refusal_of(image_with({{kSevEsResetGuid, words({0x1000}), -5}})).find("17 bytes") != std::string::npos);
  CHECK(refusal_of(image_with({{kSevEsResetGuid, words({0x1000}), -22}})).find("0 bytes") != std::string::npos);
  CHECK(refusal_of(image_with({{kSevEsResetGuid, words({0x1000}), 1}})).find("23 bytes") != std::string::npos);
  CHECK(refusal_of(image_with({{kSevEsResetGuid, Bytes(3)}})).find("3 bytes of data, 4 are needed") !=
        std::string::npos);
  CHECK(refusal_of(image_with({{kHashesAreaGuid, Bytes(7)}})).find("8 are needed") != std::string::npos);
  CHECK(refusal_of(image_with({reset[0], reset[0]})).find("twice") != std::string::npos);
}

TEST_CASE("whatever length fields say, parsing ends within the image") {
  const Bytes good = image_with({{kHashesAreaGuid, words({0x1000, 176})}, {kSevEsResetGuid, words({0x1000})}}, 0, 16);
  // Each byte of the table in turn takes some telling values; a sanitizer build sees what goes astray.
  unsigned refused = 0;
  for (std::size_t at = 0; at < good.size(); ++at) {
    for (const unsigned value : {0x00U, 0x01U, 0x11U, 0x12U, 0x7fU, 0x80U, 0xffU}) {
      Bytes bad = good;
      bad[at] = static_cast<std::byte>(value);
      refused += refusal_of(bad).empty() ? 0 : 1;
    }
  }
  CHECK(refused > 100);
}
