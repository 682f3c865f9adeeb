// The built image as a VMM sees it.
#include "firmware/image.hpp"

#include <catch2/catch.hpp>

#include "base/bytes.hpp"
#include "sev/footer_table.hpp"

namespace {
using sevisor::load;
using sevisor::firmware::image;
namespace sev = sevisor::sev;

TEST_CASE("the image fills 64 KiB and starts at the reset vector", "[firmware][image]") {
  REQUIRE(image().size() == 64 * 1024);
  REQUIRE(load<std::uint8_t>(image().data() + 0xfff0) == 0xe9);  // JMP rel16
  const auto distance = load<std::int16_t>(image().data() + 0xfff1);
  const int target = 0xfff3 + distance;
  REQUIRE(target >= 0xf000);
  REQUIRE(target < 0xffe0);
  REQUIRE(load<std::uint8_t>(image().data() + target) == 0xfa);  // CLI
}

TEST_CASE("the footer table names reset block, secret area and hashes area", "[firmware][image]") {
  const auto table = sev::parse_footer_table(image());
  REQUIRE(table.entries.size() == 3);
  const std::uint32_t reset = sev::require_ap_reset_address(table);
  REQUIRE(reset >= 0xfffff000);
  REQUIRE(load<std::uint8_t>(image().data() + (reset & 0xffff)) == 0xfa);  // CLI
  const auto hashes = sev::require_hashes_area(table);
  REQUIRE(hashes.size >= 176);
  REQUIRE(hashes.base % 16 == 0);
  const auto secret = table.secret_area();
  REQUIRE(secret);
  REQUIRE(secret->base % 4096 == 0);
  REQUIRE(secret->base + secret->size <= hashes.base);
  REQUIRE(hashes.base + hashes.size <= 0xa0000);
}
}  // namespace
