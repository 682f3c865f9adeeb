// Saved vector state where the host cannot be asked: at CPL 0, in real mode, and with AMD's FFXSR. Layouts: APM vol. 2,
// 11.4.4 and 11.5.
#include <catch2/catch.hpp>
#include <cstring>

#include "emulator/cpu/state/features.hpp"
#include "emulator/cpu/state/registers.hpp"
#include "tests/emulator_cpu_system/machine.hpp"

using namespace sevisor;
using namespace sevisor::emulator;
using namespace sevisor::emulator::test;

namespace {

constexpr std::uint64_t kCompacted = std::uint64_t{1} << 63;

int run(Machine& m) {
  REQUIRE(m.run().code == ghcb::kExitVmgexit);
  const int vector = m.vector();
  return vector == kVectorVc ? static_cast<int>(m.stacked(0) - ghcb::kExitException) : vector;
}

void begin(Machine& m, Mode mode, unsigned cpl = 0) {
  m.enter(mode, cpl);
  const std::array<std::byte, 1024> zero{};
  m.store_private(kData, zero);
  m.vmsa.cr4 |= kCr4Osfxsr | kCr4Osxmmexcpt | kCr4Osxsave;
  m.vmsa.xcr0 = host_extensions().avx ? 7 : 3;
  m.vmsa.mxcsr = 0x1f80;
  m.vmsa.x87_fcw = 0x37f;
  m.vmsa.rbx = kData;
  m.vmsa.rax = 7;
  m.vmsa.rdx = 0;
}

}  // namespace

TEST_CASE("XSAVES writes the compacted form, XRSTORS takes no other") {
  const Bytes xsaves = {0x0f, 0xc7, 0x2b};
  const Bytes xrstors = {0x0f, 0xc7, 0x1b};
  Machine m;
  SECTION("saved") {
    begin(m, Mode::kLong64);
    m.vmsa.xmm[3][0] = 0x33;
    m.put(kData + 512 + 16, std::uint64_t{0x1234});  // reserved: stays
    m.code(xsaves);
    CHECK(run(m) == -1);
    CHECK(m.get<std::uint64_t>(kData + 512) == 2);  // only SSE is not in its initial state
    CHECK(m.get<std::uint64_t>(kData + 520) == (kCompacted | m.vmsa.xcr0));
    CHECK(m.get<std::uint64_t>(kData + 528) == 0x1234);
    CHECK(m.get<std::uint8_t>(kData + 160 + 48) == 0x33);
    CHECK(m.get<std::uint32_t>(kData + 24) == 0x1f80);
  }
  SECTION("the upper halves follow the header") {
    if (!host_extensions().avx) return;
    begin(m, Mode::kLong64);
    m.vmsa.ymm_high[2][5] = 0x77;
    m.code(xsaves);
    CHECK(run(m) == -1);
    CHECK(m.get<std::uint64_t>(kData + 512) == 4);
    CHECK(m.get<std::uint8_t>(kData + 576 + 32 + 5) == 0x77);
  }
  SECTION("restored") {
    begin(m, Mode::kLong64);
    m.put(kData + 24, std::uint32_t{0x3f80});
    m.put(kData + 160, std::uint64_t{0x1122});
    m.put(kData + 512, std::uint64_t{2});
    m.put(kData + 520, kCompacted | 3);
    m.vmsa.ymm_high[0][0] = 1;
    m.vmsa.x87_fcw = 0x27f;
    m.code(xrstors);
    CHECK(run(m) == -1);
    CHECK(m.vmsa.mxcsr == 0x3f80);
    CHECK(m.vmsa.xmm[0][0] == 0x22);
    CHECK(m.vmsa.x87_fcw == 0x37f);  // asked for, not there: initial
    CHECK(m.vmsa.ymm_high[0][0] == 0);
  }
  SECTION("standard form: #GP") {
    begin(m, Mode::kLong64);
    m.put(kData + 512, std::uint64_t{2});
    m.put(kData + 520, std::uint64_t{0});
    m.code(xrstors);
    CHECK(run(m) == kVectorGp);
  }
  SECTION("at CPL 3: #GP") {
    begin(m, Mode::kLong64, 3);
    m.code(xsaves);
    CHECK(run(m) == kVectorGp);
  }
}

TEST_CASE("XSETBV takes the components that exist, x87 among them, AVX not without SSE") {
  for (const std::uint64_t value : {0ULL, 1ULL, 2ULL, 3ULL, 4ULL, 5ULL, 6ULL, 7ULL, 11ULL, 0x203ULL, 1ULL << 63 | 3}) {
    Machine m;
    begin(m, Mode::kLong64);
    m.vmsa.rcx = 0;
    m.vmsa.rax = value & 0xffffffff;
    m.vmsa.rdx = value >> 32;
    m.code({0x0f, 0x01, 0xd1});
    INFO("XCR0 " << value);
    const bool good = value == 1 || value == 3 || (value == 7 && host_extensions().avx);
    CHECK(run(m) == (good ? -1 : kVectorGp));
  }
}

TEST_CASE("with EFER.FFXSR, FXSAVE leaves the XMM registers out at CPL 0 in 64-bit mode") {  // APM vol. 2, 11.5.5.4
  for (const unsigned cpl : {0U, 3U}) {
    for (const bool fast : {false, true}) {
      Machine m;
      begin(m, Mode::kLong64, cpl);
      if (fast) m.vmsa.efer |= kEferFfxsr;
      m.vmsa.xmm[0][0] = 0x55;
      m.put(kData + 160, std::uint64_t{0});
      m.code({0x48, 0x0f, 0xae, 0x03});
      REQUIRE(m.run().code == ghcb::kExitVmgexit);
      CHECK(m.get<std::uint8_t>(kData + 160) == (fast && cpl == 0 ? 0 : 0x55));
      CHECK(m.get<std::uint32_t>(kData + 28) == 0x2ffff);  // MXCSR_MASK: with MM
    }
  }
}

TEST_CASE("FXSAVE stores eight XMM registers outside 64-bit mode") {
  Machine m;
  begin(m, Mode::kProtected32);
  m.vmsa.xmm[7][0] = 7;
  m.vmsa.xmm[8][0] = 8;
  m.put(kData + 160 + 128, std::uint64_t{0});
  m.code({0x0f, 0xae, 0x03});
  CHECK(run(m) == -1);
  CHECK(m.get<std::uint8_t>(kData + 160 + 112) == 7);
  CHECK(m.get<std::uint8_t>(kData + 160 + 128) == 0);
}

// APM vol. 2, 11.4.4; what an EPYC of family 25 (Milan) does.
TEST_CASE("FXSAVE and XSAVE show x87's pointers only while an exception is pending") {
  Machine m;
  begin(m, Mode::kProtected32);
  constexpr std::uint64_t kArea = kData + 128;
  constexpr std::uint16_t kDivision = 4;  // ZE, ZM
  constexpr std::uint64_t kOnes = ~std::uint64_t{0};
  m.put(kData + 64, 1.0F);
  m.put(kData + 96, std::uint16_t{0x037f & ~kDivision});
  for (const std::uint64_t at : {kArea + 8, kArea + 16}) m.put(at, kOnes);
  m.vmsa.x87_fsw = kDivision;                      // raised before, masked
  const Bytes load = {0xd9, 0x43, 0x40};           // fld dword [rbx+64]
  const Bytes unmask = {0xd9, 0x6b, 0x60};         // fldcw [rbx+96]
  Bytes save = {0x0f, 0xae, 0x83, 0x80, 0, 0, 0};  // fxsave [rbx+128]
  SECTION("FXSAVE") {}
  SECTION("XSAVE") { save[2] = 0xa3; }
  SECTION("XSAVEC") { save = {0x0f, 0xc7, 0xa3, 0x80, 0, 0, 0}; }
  Bytes code = load;
  SECTION("none is") {
    code.insert(code.end(), save.begin(), save.end());
    m.code(code);
    CHECK(run(m) == -1);
    CHECK(m.get<std::uint16_t>(kArea + 2) == 0x3804);
    CHECK(m.get<std::uint16_t>(kArea + 6) == 0);
    CHECK(m.get<std::uint64_t>(kArea + 8) == 0);
    CHECK(m.get<std::uint64_t>(kArea + 16) == 0);
  }
  SECTION("one becomes so by FLDCW") {
    code.insert(code.end(), unmask.begin(), unmask.end());
    code.insert(code.end(), save.begin(), save.end());
    m.code(code);
    CHECK(run(m) == -1);
    CHECK(m.get<std::uint16_t>(kArea + 2) == 0xb884);
    CHECK(m.get<std::uint16_t>(kArea + 6) == 0x143);  // opcode D9 43
    CHECK(m.get<std::uint32_t>(kArea + 8) == kCode);
    CHECK(m.get<std::uint32_t>(kArea + 12) == m.vmsa.cs.selector);
    CHECK(m.get<std::uint32_t>(kArea + 16) == kData + 64);
    CHECK(m.get<std::uint32_t>(kArea + 20) == m.vmsa.ds.selector);
  }
}

TEST_CASE("the x87 environment has four layouts") {  // APM vol. 2, figures 11-2 to 11-5
  Machine m;
  // fld1; fnstenv [bx]
  const Bytes code = {0xd9, 0xe8, 0xd9, 0x37};
  const Bytes wide_prefix = {0x66};
  SECTION("protected, 32 bits") {
    begin(m, Mode::kProtected32);
    // fld dword [rbx+64]; fnstenv [rbx]
    m.code({0xd9, 0x43, 0x40, 0xd9, 0x33});
    m.put(kData + 64, 1.0F);
    REQUIRE(m.vmsa.cs.selector != m.vmsa.ds.selector);
    CHECK(run(m) == -1);
    CHECK(m.get<std::uint16_t>(kData + 16) == m.vmsa.cs.selector);
    CHECK(m.get<std::uint16_t>(kData + 18) == 0x143);  // opcode D9 43
    CHECK(m.get<std::uint32_t>(kData + 20) == kData + 64);
    CHECK(m.get<std::uint32_t>(kData + 24) == (0xffff0000U | m.vmsa.ds.selector));
    CHECK(m.vmsa.x87_cs == m.vmsa.cs.selector);
    CHECK(m.vmsa.x87_ds == m.vmsa.ds.selector);
  }
  SECTION("protected, 32 bits, without an operand") {
    begin(m, Mode::kProtected32);
    m.code({0xd9, 0xe8, 0xd9, 0x33});
    CHECK(run(m) == -1);
    CHECK(m.get<std::uint32_t>(kData) == 0xffff037f);
    CHECK(m.get<std::uint32_t>(kData + 4) == 0xffff3800);
    CHECK(m.get<std::uint32_t>(kData + 8) == 0xffff3fff);
    CHECK(m.get<std::uint32_t>(kData + 12) == kCode);
    CHECK(m.get<std::uint16_t>(kData + 18) == 0x1e8);  // opcode D9 E8
  }
  SECTION("protected, 16 bits") {
    begin(m, Mode::kProtected32);
    m.code({0xd9, 0xe8, 0x66, 0xd9, 0x33});
    CHECK(run(m) == -1);
    CHECK(m.get<std::uint16_t>(kData + 2) == 0x3800);
    CHECK(m.get<std::uint16_t>(kData + 4) == 0x3fff);
    CHECK(m.get<std::uint16_t>(kData + 6) == (kCode & 0xffff));
    CHECK(m.get<std::uint16_t>(kData + 8) == m.vmsa.cs.selector);
  }
  SECTION("real, 16 bits") {
    begin(m, Mode::kReal);
    m.vmsa.rbx = 0x800;
    m.code(code);
    REQUIRE(m.run().code == ghcb::kExitVmgexit);
    const std::uint64_t at = m.vmsa.ds.base + 0x800;
    CHECK(m.get<std::uint16_t>(at) == 0x37f);
    CHECK(m.get<std::uint16_t>(at + 2) == 0x3800);
    CHECK(m.get<std::uint16_t>(at + 4) == 0x3fff);
    CHECK((m.get<std::uint16_t>(at + 8) & 0x7ff) == 0x1e8);
  }
  SECTION("real, 32 bits") {
    begin(m, Mode::kReal);
    m.vmsa.rbx = 0x800;
    m.code({0xd9, 0xe8, 0x66, 0xd9, 0x37});
    REQUIRE(m.run().code == ghcb::kExitVmgexit);
    const std::uint64_t at = m.vmsa.ds.base + 0x800;
    CHECK(m.get<std::uint16_t>(at + 4) == 0x3800);
    CHECK((m.get<std::uint32_t>(at + 16) & 0x7ff) == 0x1e8);
  }
  // Masks all exceptions afterwards.
  CHECK((m.vmsa.x87_fcw & 0x3f) == 0x3f);
}
