#include "ghcb/ioio.hpp"

#include <catch2/catch.hpp>

namespace {
using namespace sevisor::ghcb;

TEST_CASE("IOIO information of the common forms", "[ghcb][ioio]") {
  // OUT 0x3f8, AL in 64-bit mode; IN EAX, 0xcfc; REP INSB from 0x511; OUTSW from FS with 32-bit addresses.
  REQUIRE(encode(IoAccess{.port = 0x3f8}) == 0x03f8'0210);
  REQUIRE(encode(IoAccess{.port = 0xcfc, .in = true, .size = 4}) == 0x0cfc'0241);
  REQUIRE(encode(IoAccess{.port = 0x511, .in = true, .string = true, .rep = true}) == 0x0511'021d);
  REQUIRE(encode(IoAccess{.port = 1, .string = true, .size = 2, .address_size = 4, .segment = IoSegment::kFs}) ==
          0x0001'1124);
}

TEST_CASE("decoding undoes encoding", "[ghcb][ioio]") {
  for (unsigned size : {1u, 2u, 4u}) {
    for (unsigned address_size : {2u, 4u, 8u}) {
      for (unsigned flags = 0; flags < 8; ++flags) {
        for (unsigned segment = 0; segment < 6; ++segment) {
          const IoAccess access{.port = 0xfedc,
                                .in = (flags & 1) != 0,
                                .string = (flags & 2) != 0,
                                .rep = (flags & 4) != 0,
                                .size = size,
                                .address_size = address_size,
                                .segment = static_cast<IoSegment>(segment)};
          REQUIRE(decode_ioio(encode(access)) == access);
        }
      }
    }
  }
}

TEST_CASE("malformed IOIO information is refused", "[ghcb][ioio]") {
  REQUIRE_FALSE(decode_ioio(0x03f8'0200));    // no size
  REQUIRE_FALSE(decode_ioio(0x03f8'0230));    // two sizes
  REQUIRE_FALSE(decode_ioio(0x03f8'0310));    // two address sizes
  REQUIRE_FALSE(decode_ioio(0x03f8'1a10));    // segment 6
  REQUIRE_FALSE(decode_ioio(0x03f8'0212));    // reserved bit 1
  REQUIRE_FALSE(decode_ioio(0x1'03f8'0210));  // reserved bit 32
  REQUIRE(decode_ioio(0x03f8'0010)->address_size == 8);
}
}  // namespace
