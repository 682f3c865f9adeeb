// Segment loads, descriptor tables and the instructions that inspect descriptors.
#include <catch2/catch.hpp>

#include "machine.hpp"

using namespace sevisor;
using namespace sevisor::emulator;
using namespace sevisor::emulator::test;

namespace {

const Bytes kMovDsAx = {0x8e, 0xd8};
const Bytes kMovSsAx = {0x8e, 0xd0};

}  // namespace

TEST_CASE("Data segment loads check type, privilege and presence") {
  Machine m;
  struct Case {
    const char* what;
    std::uint16_t selector;
    std::uint16_t attributes;
    unsigned cpl;
    int vector;
    std::uint32_t error;
  };
  const std::vector<Case> cases = {
      {"writable data", kSpare, kAttrData, 0, -1, 0},
      {"read-only data", kSpare, kAttrData & ~2, 0, -1, 0},
      {"readable code", kSpare, kAttrCode32, 0, -1, 0},
      {"execute-only code", kSpare, kAttrCode32 & ~2, 0, kVectorGp, kSpare},
      {"system", kSpare, 0x82, 0, kVectorGp, kSpare},
      {"kernel data for user", kSpare | 3, kAttrData, 3, kVectorGp, kSpare},
      {"conforming kernel code for user", kSpare | 3, kAttrCode32 | 4, 3, -1, 0},
      {"RPL above DPL", kSpare | 3, kAttrData, 0, kVectorGp, kSpare},
      {"not present", kSpare, kAttrData & ~0x80, 0, kVectorNp, kSpare},
      {"beyond the table", kGdtSize, 0, 0, kVectorGp, kGdtSize},
  };
  const Mode mode = GENERATE(Mode::kProtected32, Mode::kLong64);
  for (const Case& c : cases) {
    INFO(c.what);
    m.enter(mode, c.cpl);
    m.set_descriptor(kSpare, descriptor(0x12345678, 0x00fff, c.attributes & ~1));
    m.vmsa.rax = c.selector;
    m.code(kMovDsAx);
    REQUIRE(m.run().code == ghcb::kExitVmgexit);
    if (c.vector < 0) {
      CHECK(m.vmsa.ds.selector == c.selector);
      CHECK(m.vmsa.ds.base == 0x12345678);
      CHECK(m.vmsa.ds.limit == 0x00ff'ffff);
      CHECK(m.vmsa.ds.attributes == (c.attributes | 1));
      CHECK((m.get<std::uint64_t>(kGdt + kSpare) >> 40 & 1) == 1);  // accessed
    } else {
      CHECK(m.vector() == c.vector);
      CHECK(m.stacked(0) == c.error);
    }
  }
}

TEST_CASE("Null selectors") {
  Machine m;
  const std::uint16_t null = GENERATE(std::uint16_t{0}, std::uint16_t{3});
  m.enter(Mode::kProtected32);
  m.vmsa.rax = null;
  SECTION("in DS: accepted, and faults when used") {
    m.code({0x8e, 0xd8, 0x8b, 0x03});
    REQUIRE(m.run().code == ghcb::kExitVmgexit);
    CHECK(m.vector() == kVectorGp);
    CHECK(m.stacked(0) == 0);
    CHECK(m.stacked(1) == kCode + 2);
    CHECK(m.vmsa.ds.selector == null);
  }
  SECTION("in SS: #GP(0)") {
    m.code(kMovSsAx);
    REQUIRE(m.run().code == ghcb::kExitVmgexit);
    CHECK(m.vector() == kVectorGp);
    CHECK(m.stacked(0) == 0);
  }
  SECTION("in SS of 64-bit kernel code: RPL must be CPL") {
    m.enter(Mode::kLong64);
    m.vmsa.rax = null;
    m.code(kMovSsAx);
    REQUIRE(m.run().code == ghcb::kExitVmgexit);
    CHECK(m.vector() == (null == 0 ? -1 : int{kVectorGp}));
  }
}

TEST_CASE("SS not present is #SS, and SS of another privilege #GP") {
  Machine m;
  m.enter(Mode::kProtected32);
  m.set_descriptor(kSpare, descriptor(0, 0xfffff, kAttrData & ~0x80));
  m.vmsa.rax = kSpare;
  m.code(kMovSsAx);
  REQUIRE(m.run().code == ghcb::kExitVmgexit);
  CHECK(m.vector() == kVectorSs);
  CHECK(m.stacked(0) == kSpare);
  m.enter(Mode::kProtected32);
  m.vmsa.rax = kUserData | 3;
  REQUIRE(m.run().code == ghcb::kExitVmgexit);
  CHECK(m.vector() == kVectorGp);
  CHECK(m.stacked(0) == kUserData);
}

TEST_CASE("Real mode loads make the base of the selector") {
  Machine m;
  m.enter(Mode::kReal);
  m.vmsa.rax = 0x1234;
  m.code({0x8e, 0xc0, 0x06, 0x0f, 0xa1});  // mov es, ax; push es; pop fs
  REQUIRE(m.run().code == ghcb::kExitVmgexit);
  CHECK(m.vmsa.es.base == 0x12340);
  CHECK(m.vmsa.fs.selector == 0x1234);
  CHECK(m.vmsa.fs.base == 0x12340);
  CHECK(m.vmsa.rsp == 0x8000);
}

TEST_CASE("LGDT, LIDT, SGDT, SIDT") {
  Machine m;
  m.put(kData, std::uint16_t{0x1ff});
  m.put(kData + 2, std::uint64_t{0xffff'8001'8765'4321});
  SECTION("64-bit") {
    m.enter(Mode::kLong64);
    m.vmsa.rbx = kData;
    m.code({0x0f, 0x01, 0x1b, 0x0f, 0x01, 0x4b, 0x20});  // lidt [rbx]; sidt [rbx + 0x20]
    REQUIRE(m.run().code == ghcb::kExitVmgexit);
    CHECK(m.vmsa.idtr.limit == 0x1ff);
    CHECK(m.vmsa.idtr.base == 0xffff'8001'8765'4321);
    CHECK(m.get<std::uint16_t>(kData + 0x20) == 0x1ff);
    CHECK(m.get<std::uint64_t>(kData + 0x22) == 0xffff'8001'8765'4321);
  }
  SECTION("32-bit") {
    m.enter(Mode::kProtected32);
    m.vmsa.rbx = kData;
    m.code({0x0f, 0x01, 0x13});
    REQUIRE(m.run().code == ghcb::kExitVmgexit);
    CHECK(m.vmsa.gdtr.base == 0x87654321);
  }
  SECTION("16-bit operand size takes 24 bits of base") {
    m.enter(Mode::kReal);
    m.vmsa.rbx = kData & 0xffff;
    m.vmsa.ds.base = kData & ~0xffffULL;
    m.vmsa.ds.selector = static_cast<std::uint16_t>(m.vmsa.ds.base >> 4);
    m.code({0x0f, 0x01, 0x17});
    REQUIRE(m.run().code == ghcb::kExitVmgexit);
    CHECK(m.vmsa.gdtr.base == 0x654321);
  }
  SECTION("user code") {
    m.enter(Mode::kLong64, 3);
    m.vmsa.rbx = kData;
    m.code({0x0f, 0x01, 0x13});
    REQUIRE(m.run().code == ghcb::kExitVmgexit);
    CHECK(m.vector() == kVectorGp);
  }
  SECTION("UMIP") {
    m.enter(Mode::kLong64, 3);
    m.vmsa.cr4 |= kCr4Umip;
    m.vmsa.rbx = kData;
    m.code(GENERATE(Bytes{0x0f, 0x01, 0x03}, Bytes{0x0f, 0x01, 0x0b}, Bytes{0x0f, 0x00, 0xc0}, Bytes{0x0f, 0x00, 0xc8},
                    Bytes{0x0f, 0x01, 0xe0}));
    REQUIRE(m.run().code == ghcb::kExitVmgexit);
    CHECK(m.vector() == kVectorGp);
  }
}

TEST_CASE("LTR marks the TSS busy and will not take a busy one") {
  Machine m;
  m.enter(Mode::kLong64);
  m.set_descriptor(kTssSelector, descriptor(kTss, 0x1ff, 0x89));
  m.put(kGdt + kTssSelector + 8, std::uint64_t{0xffff'8000});
  m.vmsa.rax = kTssSelector;
  m.code({0x0f, 0x00, 0xd8});
  REQUIRE(m.run().code == ghcb::kExitVmgexit);
  CHECK(m.vmsa.tr.base == (0xffff'8000'0000'0000 | kTss));
  CHECK(m.vmsa.tr.attributes == 0x8b);
  CHECK((m.get<std::uint64_t>(kGdt + kTssSelector) >> 40 & 0xf) == 11);
  m.vmsa.rip = kCode;
  m.vmsa.tr.base = kTss;
  REQUIRE(m.run().code == ghcb::kExitVmgexit);
  CHECK(m.vector() == kVectorGp);
  CHECK(m.stacked(0) == kTssSelector);
}

TEST_CASE("LLDT opens selectors with TI") {
  Machine m;
  m.enter(Mode::kProtected32);
  m.set_descriptor(kSpare, descriptor(kData, 0xf, 0x82));
  m.put(kData + 8, descriptor(0, 0xfffff, kAttrData));
  m.vmsa.rax = kSpare;
  m.vmsa.rcx = 8 | 4;
  m.code({0x0f, 0x00, 0xd0, 0x8e, 0xe1, 0x0f, 0x00, 0xc2});  // lldt ax; mov fs, cx; sldt edx
  REQUIRE(m.run().code == ghcb::kExitVmgexit);
  CHECK(m.vmsa.fs.selector == (8 | 4));
  CHECK(m.vmsa.rdx == kSpare);
}

TEST_CASE("LAR, LSL, VERR, VERW say what may be seen") {
  Machine m;
  struct Case {
    const char* what;
    std::uint16_t selector;
    std::uint16_t attributes;
    unsigned cpl;
    bool lar, lsl, verr, verw;
  };
  const std::vector<Case> cases = {
      {"data", kSpare, kAttrData, 0, true, true, true, true},
      {"read-only data", kSpare, kAttrData & ~2, 0, true, true, true, false},
      {"code", kSpare, kAttrCode32, 0, true, true, true, false},
      {"execute-only code", kSpare, kAttrCode32 & ~2, 0, true, true, false, false},
      {"kernel data for user", kSpare, kAttrData, 3, false, false, false, false},
      {"user data for user", kSpare | 3, kAttrData | kAttrUser, 3, true, true, true, true},
      {"conforming code for user", kSpare | 3, kAttrCode32 | 4, 3, true, true, true, false},
      {"LDT", kSpare, 0x82, 0, true, true, false, false},
      {"call gate", kSpare, 0x8c, 0, true, false, false, false},
      {"interrupt gate", kSpare, 0x8e, 0, false, false, false, false},
      {"null", 0, 0, 0, false, false, false, false},
      {"beyond the table", kGdtSize, 0, 0, false, false, false, false},
  };
  const Mode mode = GENERATE(Mode::kProtected32, Mode::kLong64);
  constexpr std::uint64_t kZf = 0x40;
  for (const Case& c : cases) {
    INFO(c.what);
    const std::uint64_t raw = descriptor(0, 0x12345, c.attributes);
    const auto zf_after = [&](const Bytes& bytes) {
      m.enter(mode, c.cpl);
      m.set_descriptor(kSpare, raw);
      m.vmsa.rax = c.selector;
      m.vmsa.rdx = 0x5555;
      m.code(bytes);
      REQUIRE(m.run().code == ghcb::kExitVmgexit);
      CHECK(m.vmsa.rip == kCode + bytes.size() + 4);
      return (m.vmsa.rflags & kZf) != 0;
    };
    CHECK(zf_after({0x0f, 0x02, 0xd0}) == c.lar);
    CHECK(m.vmsa.rdx == (c.lar ? (raw >> 32 & 0xf0ff00) : 0x5555));
    CHECK(zf_after({0x0f, 0x03, 0xd0}) == c.lsl);
    const bool pages = (c.attributes & kSegGranularity) != 0;
    CHECK(m.vmsa.rdx == (c.lsl ? (pages ? 0x12345fff : 0x12345) : 0x5555));
    CHECK(zf_after({0x0f, 0x00, 0xe0}) == c.verr);
    CHECK(zf_after({0x0f, 0x00, 0xe8}) == c.verw);
  }
}

TEST_CASE("LSS, far pointers and ARPL") {
  Machine m;
  m.enter(Mode::kProtected32);
  m.put(kData, std::uint32_t{0x1234});
  m.put(kData + 4, kData0);
  m.vmsa.rbx = kData;
  SECTION("LSS") {
    m.code({0x0f, 0xb2, 0x23});  // lss esp, [ebx]
    REQUIRE(m.run().code == ghcb::kExitVmgexit);
    CHECK(m.vmsa.rsp == 0x1234);
    CHECK(m.vmsa.ss.selector == kData0);
  }
  SECTION("LES") {
    m.code({0xc4, 0x0b});  // les ecx, [ebx]
    REQUIRE(m.run().code == ghcb::kExitVmgexit);
    CHECK(m.vmsa.rcx == 0x1234);
    CHECK(m.vmsa.es.selector == kData0);
  }
  SECTION("ARPL") {
    m.vmsa.rax = 0x10;
    m.vmsa.rcx = 0x1b;
    m.code({0x63, 0xc8});  // arpl ax, cx
    REQUIRE(m.run().code == ghcb::kExitVmgexit);
    CHECK(m.vmsa.rax == 0x13);
    CHECK((m.vmsa.rflags & 0x40) != 0);
  }
}

TEST_CASE("Bases of FS and GS") {
  Machine m;
  m.enter(Mode::kLong64);
  m.vmsa.cr4 |= kCr4Fsgsbase;
  m.vmsa.gs.base = 0x1111'2222'3333;
  m.vmsa.kernel_gs_base = 0xffff'8888'7777'6666;
  m.vmsa.rax = 0xffff'9000'0000'0000;
  m.code({0xf3, 0x48, 0x0f, 0xae, 0xd0,  // wrfsbase rax
          0x0f, 0x01, 0xf8,              // swapgs
          0xf3, 0x48, 0x0f, 0xae, 0xc9,  // rdgsbase rcx
          0xf3, 0x0f, 0xae, 0xc2});      // rdfsbase edx
  REQUIRE(m.run().code == ghcb::kExitVmgexit);
  CHECK(m.vmsa.fs.base == 0xffff'9000'0000'0000);
  CHECK(m.vmsa.rcx == 0xffff'8888'7777'6666);
  CHECK(m.vmsa.kernel_gs_base == 0x1111'2222'3333);
  CHECK(m.vmsa.rdx == 0);
  m.vmsa.rip = kCode;
  m.vmsa.rax = 0x0000'9000'0000'0000;
  REQUIRE(m.run().code == ghcb::kExitVmgexit);
  CHECK(m.vector() == kVectorGp);
  m.enter(Mode::kLong64);
  REQUIRE(m.run().code == ghcb::kExitVmgexit);
  CHECK(m.vector() == kVectorUd);
  m.enter(Mode::kLong64, 3);
  m.code({0x0f, 0x01, 0xf8});
  REQUIRE(m.run().code == ghcb::kExitVmgexit);
  CHECK(m.vector() == kVectorGp);
}
