#include "devices/e820.hpp"

#include <catch2/catch.hpp>

#include "base/error.hpp"
#include "tests/devices/helpers.hpp"

namespace sevisor::devices::test {
namespace {

TEST_CASE("e820 entries are 20 bytes, little-endian, packed") {
  const E820Entry entries[] = {
      {Gpa(0), 0x9fc00, E820Type::kRam},
      {Gpa(0x500000), 0, E820Type::kRam},
      {Gpa(0x1'0000'0000), 0x8000'0000, E820Type::kReserved},
  };
  CHECK(encode_e820(entries) == from_hex({0, 0, 0, 0, 0, 0, 0, 0, 0x00, 0xfc, 0x09, 0,    0, 0, 0, 0, 1, 0, 0, 0,
                                          0, 0, 0, 0, 1, 0, 0, 0, 0,    0,    0,    0x80, 0, 0, 0, 0, 2, 0, 0, 0}));
  CHECK(encode_e820({}).empty());
}

TEST_CASE("e820 entries must neither wrap nor overlap") {
  const E820Entry wraps[] = {{Gpa(0x1000), ~std::uint64_t{0}, E820Type::kRam}};
  CHECK_THROWS_AS(encode_e820(wraps), Error);
  const E820Entry overlap[] = {{Gpa(0), 0x1001, E820Type::kRam}, {Gpa(0x1000), 0x1000, E820Type::kReserved}};
  CHECK_THROWS_AS(encode_e820(overlap), Error);
  const E820Entry touch[] = {{Gpa(0x1000), 0x1000, E820Type::kRam}, {Gpa(0), 0x1000, E820Type::kReserved}};
  CHECK(encode_e820(touch).size() == 40);
}

}  // namespace
}  // namespace sevisor::devices::test
