#include "ghcb/page.hpp"

#include <catch2/catch.hpp>

namespace {
using namespace sevisor::ghcb;

TEST_CASE("valid bits are numbered by quadword", "[ghcb][page]") {
  ValidBitmap valid{};
  valid.set(Field::kRax);
  REQUIRE(valid.word[0] == 0x8000'0000'0000'0000);
  valid.set(Field::kExitCode);
  REQUIRE(valid.word[1] == std::uint64_t{1} << 50);
  REQUIRE(valid.has(Field::kRax));
  REQUIRE_FALSE(valid.has(Field::kRcx));
  valid.clear();
  REQUIRE(valid == ValidBitmap{});
}

TEST_CASE("field offsets are those of the page", "[ghcb][page]") {
  REQUIRE(field_offset(Field::kCpl) == 0xcb);
  REQUIRE(field_offset(Field::kRax) == 0x1f8);
  REQUIRE(field_offset(Field::kXcr0) == 0x3e8);
}
}  // namespace
