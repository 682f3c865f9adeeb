#include "sev/encoding.hpp"

#include <catch2/catch.hpp>
#include <string>

#include "sev/cpu_type.hpp"
#include "sev/firmware_status.hpp"
#include "sev/guid.hpp"

using namespace sevisor::sev;

namespace {

std::span<const std::byte> bytes_of(const std::string& text) { return std::as_bytes(std::span(text)); }

}  // namespace

TEST_CASE("base64 agrees with RFC 4648 section 10") {
  CHECK(to_base64(bytes_of("")).empty());
  CHECK(to_base64(bytes_of("f")) == "Zg==");
  CHECK(to_base64(bytes_of("fo")) == "Zm8=");
  CHECK(to_base64(bytes_of("foo")) == "Zm9v");
  CHECK(to_base64(bytes_of("foob")) == "Zm9vYg==");
  CHECK(to_base64(bytes_of("fooba")) == "Zm9vYmE=");
  CHECK(to_base64(bytes_of("foobar")) == "Zm9vYmFy");
}

TEST_CASE("hex goes both ways and refuses what is no hex") {
  CHECK(to_hex(bytes_of("\x01\xab")) == "01ab");
  REQUIRE(from_hex("01AB"));
  CHECK(to_hex(*from_hex("01AB")) == "01ab");
  CHECK_FALSE(from_hex("1"));
  CHECK_FALSE(from_hex("0g"));
}

TEST_CASE("a GUID is stored mixed-endian") {
  // As it stands in Debian's OVMF_CODE.fd, 48 bytes before the end.
  constexpr Guid kGuid = Guid::parse("96b582de-1fb2-45f7-baea-a366c55a082d");
  CHECK(to_hex(std::as_bytes(std::span(kGuid.bytes))) == "de82b596b21ff745baeaa366c55a082d");
  CHECK(kGuid.to_string() == "96b582de-1fb2-45f7-baea-a366c55a082d");
  CHECK(Guid::parse("96B582DE-1FB2-45F7-BAEA-A366C55A082D") == kGuid);
  CHECK_THROWS(Guid::parse("96b582de"));
  CHECK_THROWS(Guid::parse("96b582de-1fb2-45f7-baea-a366c55a082x"));
}

TEST_CASE("a firmware status is told by name, an unknown one as such") {
  CHECK(firmware_status_text(2).starts_with("INVALID_GUEST_STATE (2)"));
  CHECK(firmware_status_text(0xffffffff).starts_with("NO_FW_CALL"));
  CHECK(firmware_status_text(0x1234).find("0x1234") != std::string::npos);
  CHECK(firmware_status_name(0x1234).empty());
}

TEST_CASE("CPU types have QEMU's signatures") {
  CHECK(cpu_signature(find_cpu_type("EPYC-v4")) == 0x00800f12);
  CHECK(cpu_signature(find_cpu_type("EPYC-Rome-v3")) == 0x00830f10);
  CHECK(cpu_signature(find_cpu_type("EPYC-Milan")) == 0x00a00f11);
  CHECK(cpu_signature(find_cpu_type("EPYC-Genoa")) == 0x00a10f10);
  CHECK(cpu_signature(find_cpu_type("EPYC-Turin")) == 0x00b00f00);
  CHECK(cpu_signature(6, 0x3a, 9) == 0x000306a9);  // no extended family below 0x10
  CHECK_THROWS(find_cpu_type("epyc"));
  for (const auto& [name, signature] :
       {std::pair("EPYC-v5", 0x00800f12U), std::pair("EPYC-Rome-v5", 0x00830f10U),
        std::pair("EPYC-Milan-v3", 0x00a00f11U), std::pair("EPYC-Milan-v4", 0x00a00f11U),
        std::pair("EPYC-Genoa-v2", 0x00a10f10U), std::pair("EPYC-Genoa-v3", 0x00a10f10U),
        std::pair("EPYC-Turin-v1", 0x00b00f00U), std::pair("EPYC-Turin-v2", 0x00b00f00U)}) {
    CAPTURE(name);  // QEMU 10.1 and 11
    CHECK(cpu_signature(find_cpu_type(name)) == signature);
  }
  CHECK_THROWS_WITH(find_cpu_type("epyc-milan-V2"), Catch::Contains("Write it as EPYC-Milan-v2."));
  CHECK_THROWS_WITH(find_cpu_type("EPYC-v6"), Catch::Contains("There are: EPYC, EPYC-v1"));
}
