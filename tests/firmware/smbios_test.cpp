// The SMBIOS entry point, as DMTF DSP0134 section 5.2 has both kinds.
#include "firmware/smbios.hpp"

#include <catch2/catch.hpp>
#include <cstring>
#include <numeric>
#include <vector>

#include "base/bytes.hpp"

namespace {
using namespace sevisor;
using firmware::complete_smbios_entry;
using Bytes = std::vector<std::byte>;

Bytes entry(const char* anchor, std::size_t size, std::uint8_t noise = 0x5a) {
  Bytes bytes(size, std::byte{noise});
  std::memcpy(bytes.data(), anchor, std::strlen(anchor));
  if (size == 31) std::memcpy(bytes.data() + 16, "_DMI_", 5);
  return bytes;
}

unsigned sum(std::span<const std::byte> bytes) {
  return std::accumulate(bytes.begin(), bytes.end(), 0U,
                         [](unsigned total, std::byte byte) { return (total + static_cast<unsigned>(byte)) & 0xff; });
}

TEST_CASE("the 64-bit entry point gets size, address and checksum", "[firmware][smbios]") {
  Bytes bytes = entry("_SM3_", 24);
  REQUIRE(complete_smbios_entry(bytes, 0x1ffe0000, 0x12345));
  CHECK(load<std::uint32_t>(bytes.data() + 12) == 0x12345);
  CHECK(load<std::uint64_t>(bytes.data() + 16) == 0x1ffe0000);
  CHECK(sum(bytes) == 0);
}

TEST_CASE("the 32-bit entry point gets both checksums", "[firmware][smbios]") {
  Bytes bytes = entry("_SM_", 31);
  REQUIRE(complete_smbios_entry(bytes, 0x1ffe0000, 0x1234));
  CHECK(load<std::uint16_t>(bytes.data() + 0x16) == 0x1234);
  CHECK(load<std::uint32_t>(bytes.data() + 0x18) == 0x1ffe0000);
  CHECK(sum(bytes) == 0);
  CHECK(sum(std::span(bytes).subspan(16)) == 0);
  CHECK_FALSE(complete_smbios_entry(bytes, 0x1'00000000, 0x1234));
  CHECK_FALSE(complete_smbios_entry(bytes, 0x1ffe0000, 0x10000));
}

TEST_CASE("what is no entry point is left out", "[firmware][smbios]") {
  for (const std::size_t size : {0U, 4U, 23U, 25U, 31U, 32U}) {
    Bytes bytes(size, std::byte{0x5f});
    CHECK_FALSE(complete_smbios_entry(bytes, 0x100000, 100));
  }
  Bytes no_intermediate = entry("_SM_", 31);
  no_intermediate[16] = std::byte{0};
  CHECK_FALSE(complete_smbios_entry(no_intermediate, 0x100000, 100));
  Bytes wrong_size = entry("_SM3_", 31);
  CHECK_FALSE(complete_smbios_entry(wrong_size, 0x100000, 100));
}
}  // namespace
