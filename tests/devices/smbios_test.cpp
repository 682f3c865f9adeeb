// The structures walk as DMTF DSP0134 section 6.1 says, with those fields that Linux's DMI line shows.
#include "devices/smbios.hpp"

#include <catch2/catch.hpp>
#include <cstring>
#include <string>

#include "base/bytes.hpp"

namespace {
using namespace sevisor;

TEST_CASE("the SMBIOS structures can be walked and end with type 127", "[devices][smbios]") {
  const auto files = devices::build_smbios(std::uint64_t{8} << 30);
  REQUIRE(files.entry.size() == 24);
  CHECK(std::memcmp(files.entry.data(), "_SM3_", 5) == 0);
  CHECK(load<std::uint8_t>(files.entry.data() + 6) == 24);
  CHECK(load<std::uint32_t>(files.entry.data() + 12) == files.tables.size());

  std::vector<unsigned> types;
  std::vector<std::string> texts;
  std::uint64_t memory = 0;
  std::size_t at = 0;
  while (at < files.tables.size()) {
    const std::byte* structure = files.tables.data() + at;
    const auto size = load<std::uint8_t>(structure + 1);
    REQUIRE(size >= 4);
    REQUIRE(at + size + 2 <= files.tables.size());
    types.push_back(load<std::uint8_t>(structure));
    if (types.back() == 16) memory = load<std::uint64_t>(structure + 0x0f);
    at += size;
    bool any = false;
    while (at < files.tables.size() && files.tables[at] != std::byte{0}) {
      texts.emplace_back(reinterpret_cast<const char*>(files.tables.data() + at));
      at += texts.back().size() + 1;
      any = true;
    }
    at += any ? 1 : 2;
  }
  CHECK(at == files.tables.size());
  CHECK(types == std::vector<unsigned>{0, 1, 3, 16, 127});
  CHECK(texts == std::vector<std::string>{"sevisor", "1", "01/01/2026", "sevisor", "SEV-ES guest", "sevisor"});
  CHECK(memory == std::uint64_t{8} << 30);
}
}  // namespace
