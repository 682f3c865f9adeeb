// The table of VEX's opcode space, on processors that have more or fewer extensions.
#include "tests/cpu_diff/extensions.hpp"

#include <catch2/catch.hpp>
#include <vector>

#include "tests/emulator_cpu_vector/profiles.hpp"

namespace sevisor::cpu_diff {

namespace {

using Code = std::vector<std::uint8_t>;

std::string_view name_of(const Code& code) {
  const Extension* extension = vex_extension(code);
  return extension == nullptr ? std::string_view{} : extension->name;
}

// A first instruction of the range.
Code code_of(const OpcodeRange& range, unsigned opcode) {
  unsigned pp = 0;
  while ((range.prefixes >> pp & 1) == 0) ++pp;
  const unsigned length = range.only_256 ? 4 : 0;
  return {0xc4, static_cast<std::uint8_t>(0xe0 | range.map), static_cast<std::uint8_t>(0x78 | length | pp),
          static_cast<std::uint8_t>(opcode), 0xc1};
}

}  // namespace

// As GNU as and LLVM's assembler encode them.
TEST_CASE("an encoding's extension is known by map, opcode and prefix") {
  CHECK(name_of({0xc5, 0xf4, 0x41, 0xc2}) == "AVX-512 mask instructions");              // kandw k0, k1, k2
  CHECK(name_of({0xc5, 0xfb, 0x92, 0xc8}) == "AVX-512 mask instructions");              // kmovd k1, eax
  CHECK(name_of({0xc4, 0xe3, 0xf9, 0x30, 0xca, 0x03}) == "AVX-512 mask instructions");  // kshiftrw k1, k2, 3
  CHECK(name_of({0xc5, 0x78, 0x92, 0xe6}) == "AVX-512 mask instructions");              // kmovw k12, esi
  CHECK(name_of({0xc4, 0xe2, 0x71, 0xcf, 0xc2}) == "GFNI");                             // vgf2p8mulb
  CHECK(name_of({0xc4, 0xe3, 0xf1, 0xce, 0xc2, 0x07}) == "GFNI");                       // vgf2p8affineqb
  CHECK(name_of({0xc4, 0xe2, 0x71, 0x50, 0xc2}) == "AVX-VNNI");                         // vpdpbusd
  CHECK(name_of({0xc4, 0xe2, 0x73, 0x50, 0xc2}) == "AVX-VNNI-INT8");                    // vpdpbssd
  CHECK(name_of({0xc4, 0xe2, 0x72, 0xd2, 0xc2}) == "AVX-VNNI-INT16");                   // vpdpwsud
  CHECK(name_of({0xc4, 0xe2, 0xf1, 0xb4, 0xc2}) == "AVX-IFMA");                         // vpmadd52luq
  CHECK(name_of({0xc4, 0xe2, 0x7a, 0x72, 0xc1}) == "AVX-NE-CONVERT");                   // vcvtneps2bf16
  CHECK(name_of({0xc4, 0xe2, 0x71, 0xe6, 0x03}) == "CMPCCXADD");                        // cmpbexadd
  CHECK(name_of({0xc4, 0xe2, 0x7f, 0xcc, 0xc1}) == "SHA512");                           // vsha512msg1
  CHECK(name_of({0xc4, 0xe2, 0x71, 0xda, 0xc2}) == "SM3");                              // vsm3msg2
  CHECK(name_of({0xc4, 0xe3, 0x71, 0xde, 0xc2, 0x07}) == "SM3");                        // vsm3rnds2
  CHECK(name_of({0xc4, 0xe2, 0x72, 0xda, 0xc2}) == "SM4");                              // vsm4key4
  CHECK(name_of({0xc4, 0xe2, 0x78, 0x49, 0xc0}) == "AMX");                              // tilerelease
  CHECK(name_of({0xc4, 0xe2, 0x72, 0x5c, 0xda}) == "AMX");                              // tdpbf16ps
  CHECK(name_of({0xc4, 0xe3, 0xf1, 0x69, 0xc2, 0x30}) == "FMA4");                       // vfmaddpd
  CHECK(name_of({0xc4, 0xe3, 0x71, 0x48, 0xc2, 0x30}) == "XOP");                        // vpermil2ps
  CHECK(name_of({0xc4, 0xe2, 0x75, 0xdc, 0xc2}) == "VAES");                             // vaesenc ymm
  CHECK(name_of({0xc4, 0xe3, 0x75, 0x44, 0xc2, 0x00}) == "VPCLMULQDQ");                 // vpclmulqdq ymm
  SECTION("behind prefixes too") {
    CHECK(name_of({0x66, 0x2e, 0xc5, 0xfb, 0x92, 0xc8}) == "AVX-512 mask instructions");
  }
}

TEST_CASE("what is beside an extension's encodings belongs to none") {
  CHECK(vex_extension(Code{0xc5, 0xf6, 0x41, 0xc2}) == nullptr);              // F3
  CHECK(vex_extension(Code{0xc5, 0xf4, 0x43, 0xc2}) == nullptr);              // no opcode
  CHECK(vex_extension(Code{0xc5, 0xf4, 0x58, 0xc2}) == nullptr);              // vaddps
  CHECK(vex_extension(Code{0xc4, 0xe2, 0x70, 0xcf, 0xc2}) == nullptr);        // without 66
  CHECK(vex_extension(Code{0xc4, 0xe1, 0x71, 0xcf, 0xc2}) == nullptr);        // another map
  CHECK(vex_extension(Code{0xc4, 0xe2, 0x71, 0xdc, 0xc2}) == nullptr);        // vaesenc xmm: AVX and AES
  CHECK(vex_extension(Code{0xc4, 0xe3, 0x71, 0x44, 0xc2, 0x00}) == nullptr);  // vpclmulqdq xmm
  CHECK(vex_extension(Code{0x0f, 0x41, 0xc2}) == nullptr);                    // no VEX
  CHECK(vex_extension(Code{0xc4, 0xe2, 0x71}) == nullptr);                    // no opcode
  CHECK(vex_extension(Code{0x66}) == nullptr);
  CHECK(vex_extension(Code{}) == nullptr);
}

TEST_CASE("the opcodes of two extensions do not meet") {
  for (unsigned map = 0; map < 32; ++map) {
    for (unsigned opcode = 0; opcode < 256; ++opcode) {
      unsigned seen = 0;
      for (const OpcodeRange& r : vex_opcodes()) {
        if (r.map != map || opcode < r.first || opcode > r.last) continue;
        INFO("map " << map << " opcode " << opcode);
        CHECK((seen & r.prefixes) == 0);
        seen |= r.prefixes;
      }
    }
  }
}

TEST_CASE("what the guest's CPUID does not offer is judged by the manual where the host has it, and only there") {
  for (const Processor& host : {skylake_client(), sapphire_rapids(), zen2(), zen3(), zen4(), zen5(), hygon()}) {
    for (const OpcodeRange& range : vex_opcodes()) {
      const Extension& extension = *range.extension;
      if (extension.in_engine) continue;
      for (unsigned opcode = range.first; opcode <= range.last; ++opcode) {
        const Authority who = authority(host, code_of(range, opcode));
        INFO(describe_processor(host) << ": " << extension.name << " " << opcode);
        CHECK((who == Authority::kManual) == host.has(extension.bit));
        CHECK(rightly_undefined(who, false, true) == host.has(extension.bit));  // host runs it, #UD in the engine
        CHECK(rightly_undefined(who, true, true));                              // #UD in both
        CHECK_FALSE(rightly_undefined(who, true, false));                       // the engine runs it
        CHECK(rightly_undefined(who, false, false) == !host.has(extension.bit));
      }
    }
  }
}

TEST_CASE("hosts accept the extensions of their CPUID") {
  const auto accepts = [](const Processor& host, const Code& code) {
    return rightly_undefined(authority(host, code), false, true);
  };
  const Code kmovw = {0xc5, 0x78, 0x92, 0xe6};
  const Code gfni = {0xc4, 0xe2, 0x71, 0xcf, 0xc2};
  const Code vnni = {0xc4, 0xe2, 0x71, 0x50, 0xc2};
  const Code amx = {0xc4, 0xe2, 0x78, 0x49, 0xc0};
  struct Row {
    Processor host;
    bool kmovw, gfni, vnni, amx;
  };
  const auto row = GENERATE(values<Row>({{skylake_client(), false, false, false, false},
                                         {sapphire_rapids(), true, true, true, true},
                                         {zen2(), false, false, false, false},
                                         {zen3(), false, false, false, false},
                                         {zen4(), true, true, false, false},
                                         {zen5(), true, true, true, false}}));
  INFO(describe_processor(row.host));
  CHECK(accepts(row.host, kmovw) == row.kmovw);
  CHECK(accepts(row.host, gfni) == row.gfni);
  CHECK(accepts(row.host, vnni) == row.vnni);
  CHECK(accepts(row.host, amx) == row.amx);
}

TEST_CASE("an encoding outside the table is compared with every host") {
  for (const Processor& host : all_profiles()) {
    const Authority who = authority(host, Code{0xc5, 0xf4, 0x43, 0xc2});
    CHECK(who == Authority::kHost);
    CHECK_FALSE(rightly_undefined(who, false, true));
    CHECK_FALSE(rightly_undefined(who, true, false));
  }
}

TEST_CASE("behind a hypervisor a hidden extension may run") {
  const Code gfni = {0xc4, 0xe2, 0x71, 0xcf, 0xc2};
  CHECK(authority(zen4_guest(), gfni) == Authority::kManual);
  Processor host = zen4_guest();
  host.cpuid[{1, 0}] = {};
  CHECK(authority(host, gfni) == Authority::kHost);
}

TEST_CASE("what the guest has is compared where the host has it") {
  const Code vaes = {0xc4, 0xe2, 0x75, 0xdc, 0xc2};
  const Code vpclmulqdq = {0xc4, 0xe3, 0x75, 0x44, 0xc2, 0x00};
  for (const Code& code : {vaes, vpclmulqdq}) {
    for (const Processor& host : {zen2(), skylake_client()}) CHECK(authority(host, code) == Authority::kNobody);
    for (const Processor& host : {zen3(), zen4(), sapphire_rapids()}) CHECK(authority(host, code) == Authority::kHost);
  }
}

}  // namespace sevisor::cpu_diff
