// When vector instructions raise #UD, #NM, #MF, #XF and #GP: the exception tables of APM vol. 4 and 5, and vol.
// 2, 11.3. And SSE4A, which only hosts of AMD have.
#include <catch2/catch.hpp>
#include <cstring>

#include "emulator/cpu/state/features.hpp"
#include "emulator/cpu/state/registers.hpp"
#include "tests/emulator_cpu_system/machine.hpp"

using namespace sevisor;
using namespace sevisor::emulator;
using namespace sevisor::emulator::test;

namespace {

constexpr int kNone = -1;

// The exception that ended the run, whether the guest saw it or it was intercepted and became #VC; kNone: it ran on.
int run(Machine& m) {
  REQUIRE(m.run().code == ghcb::kExitVmgexit);
  const int vector = m.vector();
  return vector == kVectorVc ? static_cast<int>(m.stacked(0) - ghcb::kExitException) : vector;
}

void allow_everything(Machine& m) {
  m.vmsa.cr0 &= ~(kCr0Em | kCr0Ts);
  m.vmsa.cr0 |= kCr0Mp | kCr0Ne;
  m.vmsa.cr4 |= kCr4Osfxsr | kCr4Osxmmexcpt | kCr4Osxsave;
  m.vmsa.xcr0 = host_extensions().avx ? 7 : 3;
  m.vmsa.mxcsr = 0x1f80;
  m.vmsa.x87_fcw = 0x37f;
  m.vmsa.rbx = kData;
}

const Bytes kAddps = {0x0f, 0x58, 0xc1};           // addps xmm0, xmm1
const Bytes kPaddb = {0x0f, 0xfc, 0xc1};           // paddb mm0, mm1
const Bytes kCvtpi2ps = {0x0f, 0x2a, 0xc1};        // cvtpi2ps xmm0, mm1
const Bytes kFld1 = {0xd9, 0xe8};                  // fld1
const Bytes kFnstsw = {0xdf, 0xe0};                // fnstsw ax
const Bytes kFwait = {0x9b};                       // fwait
const Bytes kVaddps = {0xc5, 0xf4, 0x58, 0xc1};    // vaddps ymm0, ymm1, ymm1
const Bytes kVzeroupper = {0xc5, 0xf8, 0x77};      // vzeroupper
const Bytes kFxsave = {0x0f, 0xae, 0x03};          // fxsave [rbx]
const Bytes kXsave = {0x0f, 0xae, 0x23};           // xsave [rbx]
const Bytes kLdmxcsr = {0x0f, 0xae, 0x13};         // ldmxcsr [rbx]
const Bytes kVldmxcsr = {0xc5, 0xf8, 0xae, 0x13};  // vldmxcsr [rbx]
const Bytes kXgetbv = {0x0f, 0x01, 0xd0};          // xgetbv

}  // namespace

TEST_CASE("each unit obeys CR0, CR4 and XCR0") {
  struct Row {
    const char* name;
    Bytes code;
    int em, ts, ts_without_mp, no_osfxsr, no_osxsave, no_avx;
  };
  const int ud = kVectorUd;
  const int nm = kVectorNm;
  const int avx = host_extensions().avx ? kNone : ud;
  const int avx_nm = host_extensions().avx ? nm : ud;
  const std::vector<Row> rows = {
      {"addps", kAddps, ud, nm, nm, ud, kNone, kNone},
      {"paddb", kPaddb, ud, nm, nm, kNone, kNone, kNone},
      {"cvtpi2ps", kCvtpi2ps, ud, nm, nm, ud, kNone, kNone},
      {"fld1", kFld1, nm, nm, nm, kNone, kNone, kNone},
      {"fnstsw", kFnstsw, nm, nm, nm, kNone, kNone, kNone},
      {"fwait", kFwait, kNone, nm, kNone, kNone, kNone, kNone},
      {"vaddps", kVaddps, avx, avx_nm, avx_nm, avx, ud, ud},
      {"vzeroupper", kVzeroupper, avx, avx_nm, avx_nm, avx, ud, ud},
      {"fxsave", kFxsave, nm, nm, nm, kNone, kNone, kNone},
      {"xsave", kXsave, kNone, nm, nm, kNone, ud, kNone},
      {"ldmxcsr", kLdmxcsr, ud, nm, nm, ud, kNone, kNone},
      {"vldmxcsr", kVldmxcsr, avx, avx_nm, avx_nm, avx, ud, ud},
      {"xgetbv", kXgetbv, kNone, kNone, kNone, kNone, ud, kNone},
  };
  for (const Row& row : rows) {
    const auto with = [&](auto change) {
      Machine m;
      m.enter(Mode::kLong64);
      allow_everything(m);
      change(m.vmsa);
      m.put(kData, std::uint32_t{0x1f80});
      m.code(row.code);
      return run(m);
    };
    INFO(row.name);
    CHECK(with([](Vmsa& v) { v.cr0 |= kCr0Em; }) == row.em);
    CHECK(with([](Vmsa& v) { v.cr0 |= kCr0Ts; }) == row.ts);
    CHECK(with([](Vmsa& v) { v.cr0 = (v.cr0 | kCr0Ts) & ~kCr0Mp; }) == row.ts_without_mp);
    CHECK(with([](Vmsa& v) { v.cr4 &= ~kCr4Osfxsr; }) == row.no_osfxsr);
    CHECK(with([](Vmsa& v) { v.cr4 &= ~kCr4Osxsave; }) == row.no_osxsave);
    CHECK(with([](Vmsa& v) { v.xcr0 = 3; }) == row.no_avx);
    // #UD comes before #NM.
    if (row.no_osfxsr == ud) CHECK(with([](Vmsa& v) { v.cr0 |= kCr0Ts, v.cr4 &= ~kCr4Osfxsr; }) == ud);
  }
}

TEST_CASE("what no processor of this type has is undefined") {
  const std::vector<Bytes> codes = {
      {0x62, 0xf1, 0x7c, 0x48, 0x58, 0xc1},  // vaddps zmm0, zmm0, zmm1
      {0xc5, 0xf8, 0x90, 0xc1},              // kmovw k0, k1
      {0xc4, 0xe2, 0x71, 0x50, 0xc2},        // vpdpbusd xmm0, xmm1, xmm2 (AVX-VNNI)
      {0x66, 0x0f, 0x38, 0xcf, 0xc1},        // gf2p8mulb xmm0, xmm1
      {0x8f, 0xe8, 0x78, 0x96, 0xc1, 0x00},  // XOP
      {0xc4, 0xe3, 0x71, 0x69, 0xc2, 0x30},  // vfmaddpd xmm0, xmm1, xmm2, xmm3 (FMA4)
      {0x0f, 0x0f, 0xc1, 0x9e},              // pfadd mm0, mm1 (3DNow!)
      {0x0f, 0x0e},                          // femms
      {0xf0, 0x0f, 0x58, 0x03},              // lock addps xmm0, [rbx]
      {0x66, 0xc5, 0xf4, 0x58, 0xc1},        // a prefix before VEX
      {0x48, 0xc5, 0xf4, 0x58, 0xc1},        // REX before VEX
      {0xc5, 0xf4, 0x28, 0xc1},              // vmovaps with a register in vvvv
      {0xc5, 0xf4, 0xae, 0x13},              // vldmxcsr with L = 1
  };
  for (const Bytes& code : codes) {
    Machine m;
    m.enter(Mode::kLong64);
    allow_everything(m);
    m.code(code);
    INFO("first bytes " << int{code[0]} << ' ' << int{code[1]});
    CHECK(run(m) == kVectorUd);
  }
}

TEST_CASE("aligned forms fault, and MXCSR.MM waives it for operands of instructions that compute") {
  struct Row {
    const char* name;
    Bytes code;
    bool avx;
    int misaligned_by_16, misaligned_by_8, with_mm;  // of a 32-byte boundary
  };
  const int gp = kVectorGp;
  const std::vector<Row> rows = {
      {"movaps", {0x0f, 0x28, 0x03}, false, kNone, gp, gp},
      {"movaps store", {0x0f, 0x29, 0x03}, false, kNone, gp, gp},
      {"movntdq", {0x66, 0x0f, 0xe7, 0x03}, false, kNone, gp, gp},
      {"movups", {0x0f, 0x10, 0x03}, false, kNone, kNone, kNone},
      {"lddqu", {0xf2, 0x0f, 0xf0, 0x03}, false, kNone, kNone, kNone},
      {"addps", {0x0f, 0x58, 0x03}, false, kNone, gp, kNone},
      {"pxor", {0x66, 0x0f, 0xef, 0x03}, false, kNone, gp, kNone},
      {"addss", {0xf3, 0x0f, 0x58, 0x03}, false, kNone, kNone, kNone},
      {"pcmpistri", {0x66, 0x0f, 0x3a, 0x63, 0x03, 0}, false, kNone, kNone, kNone},
      {"vmovaps ymm", {0xc5, 0xfc, 0x28, 0x03}, true, gp, gp, gp},
      {"vmovaps xmm", {0xc5, 0xf8, 0x28, 0x03}, true, kNone, gp, gp},
      {"vmovups ymm", {0xc5, 0xfc, 0x10, 0x03}, true, kNone, kNone, kNone},
      {"vaddps ymm", {0xc5, 0xfc, 0x58, 0x03}, true, kNone, kNone, kNone},
      {"fxsave", kFxsave, false, kNone, gp, gp},
      {"xsave", kXsave, false, gp, gp, gp},
  };
  for (const Row& row : rows) {
    if (row.avx && !host_extensions().avx) continue;
    const auto at = [&](std::uint64_t offset, std::uint32_t mxcsr) {
      Machine m;
      m.enter(Mode::kLong64);
      allow_everything(m);
      m.vmsa.mxcsr = mxcsr;
      m.vmsa.rbx = kData + offset;
      m.code(row.code);
      return run(m);
    };
    INFO(row.name);
    CHECK(at(0, 0x1f80) == kNone);
    CHECK(at(16, 0x1f80) == row.misaligned_by_16);
    CHECK(at(8, 0x1f80) == row.misaligned_by_8);
    CHECK(at(8, 0x21f80) == row.with_mm);
  }
}

TEST_CASE("an unmasked SIMD exception is #XF, or #UD without CR4.OSXMMEXCPT, and writes nothing but its flag") {
  Machine m;
  m.enter(Mode::kLong64);
  allow_everything(m);
  m.vmsa.mxcsr = 0x1f80 & ~0x200U;  // ZE
  std::memset(m.vmsa.xmm[0], 0x3f, 16);
  m.code({0x0f, 0x5e, 0xc1});  // divps xmm0, xmm1: by 0
  int expected = kVectorXf;
  SECTION("#XF") {}
  SECTION("#UD") {
    m.vmsa.cr4 &= ~kCr4Osxmmexcpt;
    expected = kVectorUd;
  }
  CHECK(run(m) == expected);
  CHECK(m.vmsa.mxcsr == ((0x1f80 & ~0x200U) | 4));
  CHECK(m.vmsa.xmm[0][5] == 0x3f);
}

TEST_CASE("an x87 exception waits for the next instruction that looks") {
  Machine m;
  m.enter(Mode::kLong64);
  allow_everything(m);
  m.vmsa.x87_fcw = 0x37b;  // ZE
  // fld1; fldz; fdivp; fnstsw ax; fld1
  m.code({0xd9, 0xe8, 0xd9, 0xee, 0xde, 0xf9, 0xdf, 0xe0, 0xd9, 0xe8});
  CHECK(run(m) == kVectorMf);
  CHECK(m.stacked(0) == kCode + 8);
  CHECK((m.vmsa.rax & 0x80ff) == 0x8084);  // B, ES, ZE
  CHECK(m.vmsa.x87_rip == kCode + 4);
}

TEST_CASE("MXCSR takes MM and refuses reserved bits") {
  for (const std::uint32_t value : {0x1f80U, 0xffffU, 0x21f80U, 0x41f80U, 0x11f80U}) {
    Machine m;
    m.enter(Mode::kLong64);
    allow_everything(m);
    m.put(kData, value);
    m.code(kLdmxcsr);
    const bool reserved = (value & ~0x2ffffU) != 0;
    CHECK(run(m) == (reserved ? kVectorGp : kNone));
    CHECK(m.vmsa.mxcsr == (reserved ? 0x1f80 : value));
  }
}

TEST_CASE("SSE4A: EXTRQ, INSERTQ, MOVNTSS and MOVNTSD") {  // APM vol. 4
  Machine m;
  m.enter(Mode::kLong64);
  allow_everything(m);
  const auto set = [&](unsigned n, std::uint64_t low, std::uint64_t high) {
    std::memcpy(m.vmsa.xmm[n], &low, 8);
    std::memcpy(m.vmsa.xmm[n] + 8, &high, 8);
  };
  const auto low = [&](unsigned n) {
    std::uint64_t value = 0;
    std::memcpy(&value, m.vmsa.xmm[n], 8);
    return value;
  };
  set(1, 0xfedcba9876543210, 0);
  set(2, 0x0000000000000abc, 0x0000000000000c10);  // length 16, index 12
  SECTION("EXTRQ with immediates: 12 bits from bit 8") {
    m.code({0x66, 0x0f, 0x78, 0xc1, 12, 8});
    CHECK(run(m) == kNone);
    CHECK(low(1) == 0x432);
  }
  SECTION("EXTRQ with length 0: all 64") {
    m.code({0x66, 0x0f, 0x78, 0xc1, 0, 0});
    CHECK(run(m) == kNone);
    CHECK(low(1) == 0xfedcba9876543210);
  }
  SECTION("EXTRQ by register") {
    set(2, 0x0c10, 0);
    m.code({0x66, 0x0f, 0x79, 0xca});
    CHECK(run(m) == kNone);
    CHECK(low(1) == 0x6543);
  }
  SECTION("INSERTQ with immediates: 12 bits to bit 20") {
    m.code({0xf2, 0x0f, 0x78, 0xca, 12, 20});
    CHECK(run(m) == kNone);
    CHECK(low(1) == 0xfedcba98abc43210);
  }
  SECTION("INSERTQ by register: 16 bits to bit 12") {
    m.code({0xf2, 0x0f, 0x79, 0xca});
    CHECK(run(m) == kNone);
    CHECK(low(1) == 0xfedcba9870abc210);
  }
  SECTION("MOVNTSS, MOVNTSD") {
    m.code({0xf3, 0x0f, 0x2b, 0x0b, 0xf2, 0x0f, 0x2b, 0x4b, 0x10});
    m.put(kData + 4, std::uint32_t{7});
    CHECK(run(m) == kNone);
    CHECK(m.get<std::uint64_t>(kData) == 0x776543210);
    CHECK(m.get<std::uint64_t>(kData + 16) == 0xfedcba9876543210);
  }
}
