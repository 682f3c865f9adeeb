// Who a processor is, by its CPUID.
#include "tests/cpu_diff/processor.hpp"

#include <catch2/catch.hpp>

#include "tests/emulator_cpu_vector/profiles.hpp"

namespace sevisor::cpu_diff {

TEST_CASE("the host's vendor comes from CPUID") {
  CHECK(vendor_of("AuthenticAMD") == Vendor::kAmd);
  CHECK(vendor_of("GenuineIntel") == Vendor::kIntel);
  CHECK(vendor_of("HygonGenuine") == Vendor::kOther);
  CHECK(host_processor().name.size() == 12);
  CHECK(host_processor().vendor() == vendor_of(host_processor().name));
  CHECK(host_processor().family != 0);
}

// Signatures as processors show them in EAX of CPUID leaf 1.
TEST_CASE("family and model come from a signature with its extended fields") {
  struct Row {
    std::uint32_t signature;
    unsigned family, model;
  };
  const auto row = GENERATE(Row{0x00830f10, 0x17, 0x31},   // Rome
                            Row{0x00a00f11, 0x19, 0x01},   // Milan
                            Row{0x00a10f11, 0x19, 0x11},   // Genoa
                            Row{0x00b00f21, 0x1a, 0x02},   // Turin
                            Row{0x000506e3, 0x06, 0x5e},   // Skylake
                            Row{0x000806f8, 0x06, 0x8f});  // Sapphire Rapids
  CHECK(family_of(row.signature) == row.family);
  CHECK(model_of(row.signature) == row.model);
}

TEST_CASE("a processor has the CPUID bits that are set") {
  Processor p = zen2();
  CHECK_FALSE(p.has(kLa57));
  p.set(kLa57);
  CHECK(p.has(kLa57));
  CHECK_FALSE(p.has({7, 0, kEcx, 15}));
  CHECK_FALSE(p.has({7, 0, kEdx, 16}));
  CHECK_FALSE(p.has({7, 1, kEcx, 16}));
}

TEST_CASE("the cores from Zen 4 on are known by family and model") {
  const auto is = [](unsigned family, unsigned model) {
    return is_zen4_or_later(made_up("AuthenticAMD", family, model, {}));
  };
  for (const unsigned model : {0x00U, 0x01U, 0x0fU, 0x20U, 0x30U, 0x44U, 0x50U, 0x5fU}) CHECK_FALSE(is(0x19, model));
  for (const unsigned model : {0x10U, 0x11U, 0x1fU, 0x60U, 0x74U, 0xa0U, 0xafU}) CHECK(is(0x19, model));
  CHECK_FALSE(is(0x17, 0x71));
  CHECK(is(0x1a, 0x02));
  CHECK_FALSE(is_zen4_or_later(made_up("GenuineIntel", 0x19, 0x11, {})));
}

}  // namespace sevisor::cpu_diff
