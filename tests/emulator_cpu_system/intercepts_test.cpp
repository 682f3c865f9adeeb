// Each intercepted instruction: #VC with its exit code, or an exit, after the instruction's own checks.
#include "emulator/cpu/intercepts.hpp"

#include <catch2/catch.hpp>

#include "machine.hpp"

using namespace sevisor;
using namespace sevisor::emulator;
using namespace sevisor::emulator::test;

namespace {

struct Case {
  const char* name;
  Bytes bytes;
  std::uint64_t code;    // error code of #VC at CPL 0
  int user_vector = -1;  // exception at CPL 3 instead; -1: #VC there too
};

const std::vector<Case> kCases = {
    {"CPUID", {0x0f, 0xa2}, 0x72},
    {"IN AL, DX", {0xec}, 0x7b, kVectorGp},
    {"IN EAX, 0x80", {0xe5, 0x80}, 0x7b, kVectorGp},
    {"OUT 0x80, AL", {0xe6, 0x80}, 0x7b, kVectorGp},
    {"OUT DX, AX", {0x66, 0xef}, 0x7b, kVectorGp},
    {"INSB", {0x6c}, 0x7b, kVectorGp},
    {"REP OUTSD", {0xf3, 0x6f}, 0x7b, kVectorGp},
    {"RDMSR", {0x0f, 0x32}, 0x7c, kVectorGp},
    {"WRMSR", {0x0f, 0x30}, 0x7c, kVectorGp},
    {"RDPMC", {0x0f, 0x33}, 0x6f, kVectorGp},
    {"INVD", {0x0f, 0x08}, 0x76, kVectorGp},
    {"WBINVD", {0x0f, 0x09}, 0x89, kVectorGp},
    {"WBNOINVD", {0xf3, 0x0f, 0x09}, 0x89, kVectorGp},
    {"MONITOR", {0x0f, 0x01, 0xc8}, 0x8a, kVectorUd},
    {"MWAIT", {0x0f, 0x01, 0xc9}, 0x8b, kVectorUd},
    {"MONITORX", {0x0f, 0x01, 0xfa}, 0x8a},
    {"MWAITX", {0x0f, 0x01, 0xfb}, 0x8b},
    {"VMMCALL", {0x0f, 0x01, 0xd9}, 0x81},
    {"RDPRU", {0x0f, 0x01, 0xfd}, 0x8e},
    {"VMRUN", {0x0f, 0x01, 0xd8}, 0x80, kVectorGp},
    {"VMLOAD", {0x0f, 0x01, 0xda}, 0x82, kVectorGp},
    {"VMSAVE", {0x0f, 0x01, 0xdb}, 0x83, kVectorGp},
    {"STGI", {0x0f, 0x01, 0xdc}, 0x84, kVectorGp},
    {"CLGI", {0x0f, 0x01, 0xdd}, 0x85, kVectorGp},
    {"MOV RAX, DR7", {0x0f, 0x21, 0xf8}, 0x27, kVectorGp},
    {"MOV DR7, RAX", {0x0f, 0x23, 0xf8}, 0x37, kVectorGp},
};

}  // namespace

TEST_CASE("Intercepted instructions raise #VC with their exit code") {
  Machine m;
  const Mode mode = GENERATE(Mode::kProtected32, Mode::kLong64);
  for (const Case& c : kCases) {
    INFO(c.name);
    m.enter(mode);
    m.vmsa.rcx = 0x1b;  // an MSR that is intercepted
    m.code(c.bytes);
    REQUIRE(m.run().code == ghcb::kExitVmgexit);
    CHECK(m.vector() == kVectorVc);
    CHECK(m.stacked(0) == c.code);
    CHECK(m.stacked(1) == kCode);
    CHECK(exit_kind(c.code) == ExitKind::kNonAutomatic);
  }
}

TEST_CASE("Privilege is checked before the intercept") {
  Machine m;
  const Mode mode = GENERATE(Mode::kProtected32, Mode::kLong64);
  for (const Case& c : kCases) {
    INFO(c.name);
    m.enter(mode, 3);
    m.vmsa.rcx = 0x1b;
    m.code(c.bytes);
    REQUIRE(m.run().code == ghcb::kExitVmgexit);
    CHECK(m.vector() == (c.user_vector < 0 ? int{kVectorVc} : c.user_vector));
    CHECK(m.stacked(c.user_vector == kVectorUd ? 0 : 1) == kCode);
  }
}

TEST_CASE("VMGEXIT leaves in every mode and at every privilege, with RIP behind it") {
  Machine m;
  const Mode mode = GENERATE(Mode::kReal, Mode::kProtected16, Mode::kProtected32, Mode::kCompat32, Mode::kLong64);
  const unsigned cpl = mode == Mode::kReal || mode == Mode::kProtected16 ? 0 : GENERATE(0U, 3U);
  m.enter(mode, cpl);
  const std::uint64_t start = m.vmsa.rip;
  SECTION("F3") { m.code({}); }
  SECTION("F2") { m.code({0xf2, 0x0f, 0x01, 0xd9}); }
  m.cpu.set_ghcb_msr(0x1234);
  CHECK(m.run().code == ghcb::kExitVmgexit);
  CHECK(m.vmsa.rip == start + 4);
  CHECK(m.cpu.ghcb_msr() == 0x1234);
}

TEST_CASE("HLT is an automatic exit, of the kernel only") {
  Machine m;
  m.enter(Mode::kLong64);
  m.code({0xf4});
  CHECK(m.run().code == ghcb::kExitHlt);
  CHECK(m.vmsa.rip == kCode + 1);
  m.enter(Mode::kLong64, 3);
  CHECK(m.run().code == ghcb::kExitVmgexit);
  CHECK(m.vector() == kVectorGp);
}

TEST_CASE("PAUSE exits when it spins") {
  Machine m;
  m.enter(Mode::kLong64, 3);
  m.vmsa.rcx = 0;
  m.code({0xff, 0xc1, 0xf3, 0x90, 0xeb, 0xfa});  // inc ecx; pause; jmp back
  CHECK(m.run().code == ghcb::kExitPause);
  CHECK(m.vmsa.rcx == kPauseFilterCount);
  CHECK(m.vmsa.rip == kCode + 4);
  // A PAUSE now and then does not: 200 instructions lie between.
  m.enter(Mode::kLong64, 3);
  m.code({0xb9, 0x64, 0x00, 0x00, 0x00, 0x90, 0xff, 0xc9, 0x75, 0xfb, 0xf3, 0x90, 0xeb, 0xf2});
  m.controls.instruction_limit = 2000000;
  CHECK(m.run().code == ghcb::kExitIntr);
}

TEST_CASE("The I/O permission bitmap opens ports to user code") {
  Machine m;
  m.enter(Mode::kLong64, 3);
  m.put(kTss + 102, std::uint16_t{0x68});
  for (unsigned i = 0; i < 0x198; ++i) m.put(kTss + 0x68 + i, std::uint8_t{0xff});
  m.put(kTss + 0x68 + 0x80 / 8, std::uint8_t{0xfc});  // ports 0x80 and 0x81
  m.vmsa.rdx = 0x80;
  SECTION("both bytes allowed") {
    m.code({0x66, 0xed});
    REQUIRE(m.run().code == ghcb::kExitVmgexit);
    CHECK(m.vector() == kVectorVc);
  }
  SECTION("a third one not") {
    m.code({0xed});
    REQUIRE(m.run().code == ghcb::kExitVmgexit);
    CHECK(m.vector() == kVectorGp);
  }
  SECTION("beyond the TSS") {
    m.vmsa.rdx = 0xfff0;
    m.code({0xec});
    REQUIRE(m.run().code == ghcb::kExitVmgexit);
    CHECK(m.vector() == kVectorGp);
  }
  SECTION("IOPL 3 needs no map") {
    m.vmsa.rdx = 0xfff0;
    m.vmsa.rflags |= 0x3000;
    m.code({0xec});
    REQUIRE(m.run().code == ghcb::kExitVmgexit);
    CHECK(m.vector() == kVectorVc);
  }
}

TEST_CASE("Undefined instructions") {
  Machine m;
  const Bytes bytes = GENERATE(Bytes{0x0f, 0x0b}, Bytes{0x0f, 0xaa}, Bytes{0x0f, 0x01, 0xc1}, Bytes{0xf0, 0xf4},
                               Bytes{0x0f, 0x01, 0xfe}, Bytes{0x0f, 0x22, 0xc8}, Bytes{0xf2, 0x0f, 0x01, 0xff});
  m.enter(Mode::kLong64);
  m.code(bytes);
  REQUIRE(m.run().code == ghcb::kExitVmgexit);
  CHECK(m.vector() == kVectorUd);
  CHECK(m.stacked(0) == kCode);
}
