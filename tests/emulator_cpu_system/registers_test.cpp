// Control registers with their write traps, MSRs, debug registers, XCR0, the TSC.
#include <catch2/catch.hpp>

#include "machine.hpp"

using namespace sevisor;
using namespace sevisor::emulator;
using namespace sevisor::emulator::test;

namespace {

const Bytes kMovCr0Rax = {0x0f, 0x22, 0xc0};
const Bytes kMovCr3Rax = {0x0f, 0x22, 0xd8};
const Bytes kMovCr4Rax = {0x0f, 0x22, 0xe0};
const Bytes kMovCr8Rax = {0x44, 0x0f, 0x22, 0xc0};
const Bytes kWrmsr = {0x0f, 0x30};
const Bytes kRdmsr = {0x0f, 0x32};

}  // namespace

TEST_CASE("Writes of CR0, CR4, CR8 and EFER trap after the write, when the value changes") {
  Machine m;
  m.enter(Mode::kLong64);
  SECTION("CR0") {
    m.vmsa.rax = m.vmsa.cr0 | kCr0Ts;
    m.code(kMovCr0Rax);
    const CpuExit exit = m.run();
    CHECK(exit.code == 0x90);
    CHECK(exit.info1 == m.vmsa.rax);
    CHECK(m.vmsa.cr0 == m.vmsa.rax);
    CHECK(m.vmsa.rip == kCode + 3);
    m.vmsa.rip = kCode;
    CHECK(m.run().code == ghcb::kExitVmgexit);  // no change, no trap
  }
  SECTION("CLTS") {
    m.vmsa.cr0 |= kCr0Ts;
    m.code({0x0f, 0x06});
    CHECK(m.run().code == 0x90);
    CHECK((m.vmsa.cr0 & kCr0Ts) == 0);
  }
  SECTION("CR4") {
    m.vmsa.rax = m.vmsa.cr4 | kCr4Osxsave;
    m.code(kMovCr4Rax);
    const CpuExit exit = m.run();
    CHECK(exit.code == 0x94);
    CHECK(exit.info1 == m.vmsa.rax);
    CHECK(m.vmsa.rip == kCode + 3);
  }
  SECTION("CR8") {
    m.vmsa.rax = 5;
    m.code(kMovCr8Rax);
    const CpuExit exit = m.run();
    CHECK(exit.code == 0x98);
    CHECK(exit.info1 == 5);
    CHECK(m.cpu.cr8() == 5);
  }
  SECTION("EFER, whose SVME and LMA writes are ignored") {
    m.vmsa.rcx = 0xc0000080;
    m.vmsa.rax = kEferSce | kEferLme | kEferNxe | kEferFfxsr;
    m.code(kWrmsr);
    const CpuExit exit = m.run();
    CHECK(exit.code == 0x8f);
    CHECK(m.vmsa.efer == (kEferSce | kEferLme | kEferNxe | kEferFfxsr | kEferLma | kEferSvme));
    CHECK(exit.info1 == m.vmsa.efer);
    CHECK(m.vmsa.rip == kCode + 2);
  }
}

TEST_CASE("Refused control register values raise #GP(0) and change nothing") {
  Machine m;
  struct Case {
    const char* what;
    Bytes bytes;
    Mode mode;
    std::uint64_t value;
  };
  const std::uint64_t cr0 = kCr0Pe | kCr0Et;
  const std::vector<Case> cases = {
      {"CR0 upper half", kMovCr0Rax, Mode::kLong64, cr0 | kCr0Pg | std::uint64_t{1} << 32},
      {"PG without PE", kMovCr0Rax, Mode::kProtected32, kCr0Et | kCr0Pg},
      {"NW without CD", kMovCr0Rax, Mode::kProtected32, cr0 | kCr0Nw},
      {"PG off in 64-bit mode", kMovCr0Rax, Mode::kLong64, cr0},
      {"PAE off in long mode", kMovCr4Rax, Mode::kLong64, kCr4Mce},
      {"unknown CR4 bit", kMovCr4Rax, Mode::kLong64, kCr4Pae | 1 << 13},
      {"CR3 beyond the address width", kMovCr3Rax, Mode::kLong64, kPml4 | std::uint64_t{1} << 50},
      {"CR8 above 15", kMovCr8Rax, Mode::kLong64, 16},
  };
  for (const Case& c : cases) {
    INFO(c.what);
    m.enter(c.mode);
    const auto before = m.vmsa;
    m.vmsa.rax = c.value;
    m.code(c.bytes);
    REQUIRE(m.run().code == ghcb::kExitVmgexit);
    CHECK(m.vector() == kVectorGp);
    CHECK(m.stacked(0) == 0);
    CHECK(m.vmsa.cr0 == before.cr0);
    CHECK(m.vmsa.cr3 == before.cr3);
    CHECK(m.vmsa.cr4 == before.cr4);
  }
}

TEST_CASE("CR3 keeps its C-bit, and its write drops translations") {
  Machine m;
  m.enter(Mode::kLong64);
  // A second table maps kData's address to the next page.
  constexpr std::uint64_t kOther = 0x40000;
  for (unsigned i = 0; i < 512; ++i) {
    m.put(kOther + i * 8, m.get<std::uint64_t>(kPml4 + i * 8));
    m.put(kOther + 0x1000 + i * 8, m.get<std::uint64_t>(kPdp + i * 8));
    m.put(kOther + 0x2000 + i * 8, m.get<std::uint64_t>(kPd + i * 8));
    m.put(kOther + 0x3000 + i * 8, m.get<std::uint64_t>(kPt + i * 8));
  }
  m.put(kOther, (kOther + 0x1000) | 7);
  m.put(kOther + 0x1000, (kOther + 0x2000) | 7);
  m.put(kOther + 0x2000, (kOther + 0x3000) | 7);
  m.put(kOther + 0x3000 + (kData >> 12) * 8, (kData + 0x1000) | 7 | kCBit);
  m.put(kData, std::uint64_t{1});
  m.put(kData + 0x1000, std::uint64_t{2});
  m.vmsa.rax = kOther | kCBit;
  m.vmsa.rbx = kData;
  m.code({0x48, 0x8b, 0x0b, 0x0f, 0x22, 0xd8, 0x48, 0x8b, 0x13, 0x0f, 0x20, 0xde});  // ...; mov rsi, cr3
  REQUIRE(m.run().code == ghcb::kExitVmgexit);
  CHECK(m.vmsa.rcx == 1);
  CHECK(m.vmsa.rdx == 2);
  CHECK(m.vmsa.rsi == (kOther | kCBit));
}

TEST_CASE("Global translations survive CR3 writes, INVLPG drops them") {
  Machine m;
  m.enter(Mode::kLong64);
  m.vmsa.cr4 |= kCr4Pge;
  m.put(kPt + (kData >> 12) * 8, kData | 0x107 | kCBit);
  m.put(kData, std::uint64_t{1});
  m.put(kData + 0x1000, std::uint64_t{2});
  m.vmsa.rax = kPml4;
  m.vmsa.rbx = kData;
  m.vmsa.rsi = kPt + (kData >> 12) * 8;
  m.vmsa.rdi = (kData + 0x1000) | 0x107 | kCBit;
  m.code({0x48, 0x8b, 0x0b,    // mov rcx, [rbx]
          0x48, 0x89, 0x3e,    // mov [rsi], rdi
          0x0f, 0x22, 0xd8,    // mov cr3, rax
          0x48, 0x8b, 0x13,    // mov rdx, [rbx]
          0x0f, 0x01, 0x3b,    // invlpg [rbx]
          0x48, 0x8b, 0x2b});  // mov rbp, [rbx]
  REQUIRE(m.run().code == ghcb::kExitVmgexit);
  CHECK(m.vmsa.rcx == 1);
  CHECK(m.vmsa.rdx == 1);
  CHECK(m.vmsa.rbp == 2);
}

TEST_CASE("MSRs of the VMSA are read and written in place") {
  Machine m;
  struct Case {
    std::uint32_t msr;
    std::uint64_t value;
    std::uint64_t Vmsa::*field;
  };
  for (const Case& c : std::initializer_list<Case>{{0xc0000081, 0x1234567890abcdef, &Vmsa::star},
                                                   {0xc0000082, 0xffff800000001234, &Vmsa::lstar},
                                                   {0xc0000083, 0xffff800000005678, &Vmsa::cstar},
                                                   {0xc0000084, 0x47700, &Vmsa::sfmask},
                                                   {0xc0000102, 0xffff888812345678, &Vmsa::kernel_gs_base},
                                                   {0x174, 0x10, &Vmsa::sysenter_cs},
                                                   {0x175, 0x7fff12345678, &Vmsa::sysenter_esp},
                                                   {0x176, 0xffffffff81000000, &Vmsa::sysenter_eip},
                                                   {0x277, 0x0407010500070406, &Vmsa::g_pat}}) {
    INFO(std::hex << c.msr);
    m.enter(Mode::kLong64);
    m.vmsa.rcx = c.msr;
    m.vmsa.rax = (c.value & 0xffffffff) | std::uint64_t{0xbad} << 32;
    m.vmsa.rdx = c.value >> 32;
    m.code({0x0f, 0x30, 0x31, 0xc0, 0x31, 0xd2, 0x0f, 0x32});  // wrmsr; clear; rdmsr
    REQUIRE(m.run().code == ghcb::kExitVmgexit);
    CHECK(m.vmsa.*c.field == c.value);
    CHECK(m.vmsa.rax == (c.value & 0xffffffff));
    CHECK(m.vmsa.rdx == c.value >> 32);
  }
}

TEST_CASE("MSR values that the processor refuses") {
  Machine m;
  struct Case {
    std::uint32_t msr;
    std::uint64_t value;
  };
  for (const Case& c : std::initializer_list<Case>{{0xc0000082, 0x0000800000000000},
                                                   {0xc0000100, 0x8000000000000000},
                                                   {0xc0000101, 0x0001000000000000},
                                                   {0x277, 0x0000000000000002},
                                                   {0xc0000080, 0xd01 | 1 << 1},
                                                   {0xc0000080, 0xc01},  // LME off while paging
                                                   {0xc0000103, 0x100000000},
                                                   {0xda0, 1},
                                                   {0xc0010131, 3}}) {
    INFO(std::hex << c.msr << " " << c.value);
    m.enter(Mode::kLong64);
    if (c.value == 0xc01) m.vmsa.rax = kEferNxe | kEferSce;
    m.vmsa.rcx = c.msr;
    m.vmsa.rax = c.value == 0xc01 ? std::uint64_t{kEferNxe | kEferSce} : c.value & 0xffffffff;
    m.vmsa.rdx = c.value >> 32;
    m.code(kWrmsr);
    REQUIRE(m.run().code == ghcb::kExitVmgexit);
    CHECK(m.vector() == kVectorGp);
    CHECK(m.stacked(0) == 0);
  }
}

TEST_CASE("SEV_STATUS and the GHCB MSR never exit") {
  Machine m;
  m.enter(Mode::kLong64);
  m.vmsa.rcx = 0xc0010131;
  m.code(kRdmsr);
  REQUIRE(m.run().code == ghcb::kExitVmgexit);
  CHECK(m.vmsa.rax == 3);
  CHECK(m.vmsa.rdx == 0);
  m.enter(Mode::kLong64);
  m.vmsa.rcx = 0xc0010130;
  m.vmsa.rax = 0x00809000;
  m.vmsa.rdx = 0x1;
  m.code({0x0f, 0x30, 0x31, 0xc0, 0x0f, 0x32});
  REQUIRE(m.run().code == ghcb::kExitVmgexit);
  CHECK(m.cpu.ghcb_msr() == 0x100809000);
  CHECK(m.vmsa.rax == 0x00809000);
}

TEST_CASE("RDTSC follows virtual time") {
  Machine m;
  m.enter(Mode::kLong64);
  m.clock.now = 0x5'0000'0000;
  m.code({0x90, 0x90, 0x0f, 0x31, 0x89, 0xc6, 0x90, 0x0f, 0x01, 0xf9});  // nop; nop; rdtsc; mov esi, eax; nop; rdtscp
  m.vmsa.tsc_aux = 0x77;
  REQUIRE(m.run().code == ghcb::kExitVmgexit);
  CHECK(m.vmsa.rdx == 5);
  CHECK(m.vmsa.rsi == 2);
  CHECK(m.vmsa.rax == 5);
  CHECK(m.vmsa.rcx == 0x77);
  CHECK(m.clock.now == 0x5'0000'0000 + 7);
  m.enter(Mode::kLong64, 3);
  m.vmsa.cr4 |= kCr4Tsd;
  m.code({0x0f, 0x31});
  REQUIRE(m.run().code == ghcb::kExitVmgexit);
  CHECK(m.vector() == kVectorGp);
}

TEST_CASE("Debug registers other than DR7 are the guest's own") {
  Machine m;
  m.enter(Mode::kLong64);
  m.vmsa.rax = 0xffff'8000'0000'1234;
  m.code({0x0f, 0x23, 0xd8, 0x0f, 0x21, 0xdb});  // mov dr3, rax; mov rbx, dr3
  REQUIRE(m.run().code == ghcb::kExitVmgexit);
  CHECK(m.vmsa.dr[3] == 0xffff'8000'0000'1234);
  CHECK(m.vmsa.rbx == 0xffff'8000'0000'1234);
  m.enter(Mode::kLong64);
  m.vmsa.rax = 0x1ffff;
  m.code({0x0f, 0x23, 0xf0, 0x0f, 0x21, 0xe3});  // mov dr6, rax; mov rbx, dr4
  REQUIRE(m.run().code == ghcb::kExitVmgexit);
  CHECK(m.vmsa.rbx == 0xffffeffb + 4);
  m.enter(Mode::kLong64);
  m.vmsa.cr4 |= kCr4De;
  m.code({0x0f, 0x21, 0xe3});
  REQUIRE(m.run().code == ghcb::kExitVmgexit);
  CHECK(m.vector() == kVectorUd);
}

TEST_CASE("XSETBV and XGETBV") {
  Machine m;
  m.enter(Mode::kLong64);
  m.vmsa.cr4 |= kCr4Osxsave;
  m.vmsa.rax = 3;
  m.code({0x0f, 0x01, 0xd1, 0x31, 0xc0, 0x0f, 0x01, 0xd0});
  REQUIRE(m.run().code == ghcb::kExitVmgexit);
  CHECK(m.vmsa.xcr0 == 3);
  CHECK(m.vmsa.rax == 3);
  m.enter(Mode::kLong64);
  m.vmsa.cr4 |= kCr4Osxsave;
  m.vmsa.rax = GENERATE(0, 2, 5, 0x200);
  REQUIRE(m.run().code == ghcb::kExitVmgexit);
  CHECK(m.vector() == kVectorGp);
  m.enter(Mode::kLong64);
  m.vmsa.rax = 3;
  REQUIRE(m.run().code == ghcb::kExitVmgexit);
  CHECK(m.vector() == kVectorUd);
}

TEST_CASE("SMAP is suspended by STAC") {
  Machine m;
  m.enter(Mode::kLong64);
  m.vmsa.cr4 |= kCr4Smap;
  // The kernel's own pages are supervisor pages.
  for (std::uint64_t page = 0; page < kData >> 12; ++page) m.put(kPt + page * 8, page << 12 | 3 | kCBit);
  m.put(kData, std::uint64_t{0x42});
  m.vmsa.rbx = kData;
  SECTION("without") {
    m.code({0x48, 0x8b, 0x03});
    REQUIRE(m.run().code == ghcb::kExitVmgexit);
    CHECK(m.vector() == kVectorPf);
    CHECK(m.stacked(0) == 1);
  }
  SECTION("between STAC and CLAC") {
    m.code({0x0f, 0x01, 0xcb, 0x48, 0x8b, 0x0b, 0x0f, 0x01, 0xca, 0x48, 0x8b, 0x03});
    REQUIRE(m.run().code == ghcb::kExitVmgexit);
    CHECK(m.vector() == kVectorPf);
    CHECK(m.vmsa.rcx == 0x42);
    CHECK(m.stacked(1) == kCode + 9);
  }
}
