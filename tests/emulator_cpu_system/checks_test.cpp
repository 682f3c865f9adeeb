// Checks that accesses, prefixes and steps undergo: canonical stacks, alignment, single steps, VEX in real mode.
#include <catch2/catch.hpp>

#include "emulator/cpu/state/flags.hpp"
#include "emulator/cpu/state/registers.hpp"
#include "machine.hpp"

using namespace sevisor;
using namespace sevisor::emulator;
using namespace sevisor::emulator::test;

namespace {

constexpr std::uint64_t kNotCanonical = 0x8000'0000'0000'0000;

// The exception that ended the run, whether the guest saw it or it was intercepted and became #VC.
int exception(Machine& m) {
  const int vector = m.vector();
  if (vector != kVectorVc) return vector;
  return static_cast<int>(m.stacked(0) - ghcb::kExitException);
}

}  // namespace

TEST_CASE("an access to a stack that is not canonical is #SS(0), any other #GP(0)") {  // APM vol. 2, 8.2.13 and 8.2.14
  struct Case {
    Bytes code;
    int vector;
  };
  const std::vector<Case> cases = {
      {{0x50}, kVectorSs},                    // push rax
      {{0x58}, kVectorSs},                    // pop rax
      {{0xc3}, kVectorSs},                    // ret
      {{0xe8, 0, 0, 0, 0}, kVectorSs},        // call
      {{0x8b, 0x04, 0x24}, kVectorSs},        // mov eax, [rsp]
      {{0x89, 0x45, 0x00}, kVectorSs},        // mov [rbp], eax
      {{0xc9}, kVectorSs},                    // leave
      {{0x8b, 0x03}, kVectorGp},              // mov eax, [rbx]
      {{0xff, 0x33}, kVectorGp},              // push qword [rbx]: read first
      {{0x41, 0x8b, 0x45, 0x00}, kVectorGp},  // mov eax, [r13]
  };
  for (const Case& c : cases) {
    Machine m;
    m.enter(Mode::kLong64);
    m.set_gate(kVectorSs, 14, 0, 1);
    m.set_gate(kVectorGp, 14, 0, 1);
    m.vmsa.rsp = m.vmsa.rbp = m.vmsa.rbx = m.vmsa.r13 = kNotCanonical;
    m.code(c.code);
    INFO("code " << static_cast<int>(c.code[0]));
    REQUIRE(m.run().code == ghcb::kExitVmgexit);
    CHECK(m.vector() == c.vector);
    CHECK(m.stacked(0) == 0);
    CHECK(m.stacked(1) == kCode);
  }
}

TEST_CASE("alignment is checked at CPL 3 with CR0.AM and RFLAGS.AC") {  // APM vol. 2, 8.2.18
  Machine m;
  m.enter(Mode::kLong64, 3);
  m.vmsa.cr0 |= kCr0Am;
  m.vmsa.rflags |= kFlagAc;
  m.vmsa.rbx = kData;
  int expected = -1;
  SECTION("aligned") {
    m.code({0x48, 0x8b, 0x03, 0x66, 0x8b, 0x43, 0x02, 0x8a, 0x43, 0x01, 0x0f, 0x0b}), expected = kVectorUd;
  }
  SECTION("quadword") { m.code({0x48, 0x8b, 0x43, 0x04}), expected = kVectorAc; }
  SECTION("doubleword, written") { m.code({0x89, 0x43, 0x02}), expected = kVectorAc; }
  SECTION("doubleword, changed") { m.code({0x01, 0x43, 0x01}), expected = kVectorAc; }
  SECTION("stack") { m.vmsa.rsp = kUserStack - 4, m.code({0x50}), expected = kVectorAc; }
  SECTION("string") {
    m.vmsa.rdi = kData + 1, m.vmsa.rcx = 3;
    m.code({0xf3, 0xab});
    expected = kVectorAc;
  }
  SECTION("not with AC clear") {
    m.vmsa.rflags &= ~kFlagAc;
    m.code({0x48, 0x8b, 0x43, 0x04, 0x0f, 0x0b}), expected = kVectorUd;
  }
  SECTION("not with AM clear") {
    m.vmsa.cr0 &= ~kCr0Am;
    m.code({0x48, 0x8b, 0x43, 0x04, 0x0f, 0x0b}), expected = kVectorUd;
  }
  REQUIRE(m.run().code == ghcb::kExitVmgexit);
  CHECK(exception(m) == expected);
}

TEST_CASE("a step of a repeated string instruction is one element") {  // APM vol. 2, 13.1.4
  Machine m;
  m.enter(Mode::kLong64);
  m.vmsa.rflags |= kFlagTf;
  m.vmsa.rdi = kData;
  m.vmsa.rcx = 3;
  m.code({0xf3, 0xaa});  // rep stosb
  REQUIRE(m.run().code == ghcb::kExitVmgexit);
  CHECK(exception(m) == kVectorDb);
  CHECK(m.vmsa.rcx == 2);
  CHECK(m.vmsa.rdi == kData + 1);
  CHECK(m.stacked(m.vector() == kVectorDb ? 0 : 1) == kCode);
}

TEST_CASE("VEX instructions raise #UD in real mode, and run in 16-bit protected mode") {  // APM vol. 4, 1.4
  const Bytes andn = {0xc4, 0xe2, 0x78, 0xf2, 0xc3};                                      // andn eax, eax, ebx
  Machine m;
  SECTION("real") {
    m.enter(Mode::kReal);
    m.code(andn);
    REQUIRE(m.run().code == ghcb::kExitVmgexit);
    CHECK(m.vector() == kVectorUd);
  }
  SECTION("protected") {
    m.enter(Mode::kProtected16);
    m.vmsa.rax = 0xf0;
    m.vmsa.rbx = 0xff;
    m.code(andn);
    REQUIRE(m.run().code == ghcb::kExitVmgexit);
    CHECK(m.vector() == -1);
    CHECK(m.vmsa.rax == 0x0f);
  }
}

TEST_CASE("CLZERO clears the line that holds its address") {
  Machine m;
  m.enter(Mode::kLong64);
  for (unsigned n = 0; n < 24; ++n) m.put(kData + n * 8, ~std::uint64_t{0});
  m.vmsa.rax = kData + 64 + 17;
  m.code({0x0f, 0x01, 0xfc});
  REQUIRE(m.run().code == ghcb::kExitVmgexit);
  for (unsigned n = 0; n < 24; ++n) CHECK((m.get<std::uint64_t>(kData + n * 8) == 0) == (n >= 8 && n < 16));
}
