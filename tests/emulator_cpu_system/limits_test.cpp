// Segment limits of operands that instructions do not name: the stack and strings (APM vol. 2, 4.12; vol. 3, PUSH,
// MOVS).
#include <catch2/catch.hpp>

#include "machine.hpp"

using namespace sevisor;
using namespace sevisor::emulator;
using namespace sevisor::emulator::test;

namespace {

// User code of 32 bits, whose faults have a stack of their own. Its stack segment ends at kUserStack.
void enter_limited(Machine& m) {
  m.enter(Mode::kProtected32, 3);
  m.vmsa.ss.limit = kUserStack - 1;
  m.vmsa.ss.attributes &= static_cast<std::uint16_t>(~0x800U);  // the VMSA's limit counts bytes
}

}  // namespace

TEST_CASE("pushes and pops beyond the stack segment are #SS(0)") {
  struct Case {
    const char* what;
    Bytes code;
    std::uint64_t good, bad;  // the stack pointer
  };
  for (const Case& c :
       {Case{"push", {0x50}, kUserStack, kUserStack + 4}, Case{"push imm", {0x6a, 1}, kUserStack, kUserStack + 1},
        Case{"push word", {0x66, 0x50}, kUserStack, kUserStack + 2}, Case{"pusha", {0x60}, kUserStack, kUserStack + 4},
        Case{"pushf", {0x9c}, kUserStack, kUserStack + 4}, Case{"call", {0xe8, 0, 0, 0, 0}, kUserStack, kUserStack + 4},
        Case{"enter", {0xc8, 0, 0, 0}, kUserStack, kUserStack + 4}, Case{"pop", {0x58}, kUserStack - 4, kUserStack - 3},
        Case{"popa", {0x61}, kUserStack - 32, kUserStack - 28}, Case{"popf", {0x9d}, kUserStack - 4, kUserStack},
        Case{"push [mem]", {0xff, 0x33}, kUserStack, kUserStack + 4}, Case{"the top of all", {0x50}, kUserStack, 2}}) {
    INFO(c.what);
    Machine m;
    for (const bool good : {true, false}) {
      enter_limited(m);
      m.vmsa.rsp = good ? c.good : c.bad;
      m.vmsa.rbx = kData;
      m.put(kUserStack - 32, std::array<std::uint32_t, 8>{});
      m.code(c.code);
      REQUIRE(m.run().code == ghcb::kExitVmgexit);
      CHECK(m.vector() == (good ? -1 : kVectorSs));
      if (good) continue;
      CHECK(m.stacked(0) == 0);
      CHECK(m.stacked(1) == kCode);
      CHECK(m.stacked(4) == c.bad);  // nothing has moved
    }
  }
}

TEST_CASE("LEAVE and RET read within the stack segment") {
  Machine m;
  for (const bool good : {true, false}) {
    enter_limited(m);
    m.vmsa.rbp = good ? kUserStack - 4 : kUserStack;
    m.put(kUserStack - 4, std::uint32_t{7});
    m.code({0xc9});
    REQUIRE(m.run().code == ghcb::kExitVmgexit);
    CHECK(m.vector() == (good ? -1 : kVectorSs));
    enter_limited(m);
    m.vmsa.rsp = good ? kUserStack - 4 : kUserStack - 2;
    m.put(kUserStack - 4, static_cast<std::uint32_t>(kCode + 1));
    m.code({0xc3});
    REQUIRE(m.run().code == ghcb::kExitVmgexit);
    CHECK(m.vector() == (good ? -1 : kVectorSs));
  }
}

TEST_CASE("a string stops with #GP(0) at the element that leaves its segment") {
  constexpr std::uint64_t kEnd = kData + 0x100;
  struct Case {
    const char* what;
    Bytes code;
    bool source, destination;
    unsigned size;
  };
  for (const Case& c :
       {Case{"rep stosb", {0xf3, 0xaa}, false, true, 1}, Case{"rep stosd", {0xf3, 0xab}, false, true, 4},
        Case{"rep movsb", {0xf3, 0xa4}, true, true, 1}, Case{"rep lodsw", {0xf3, 0x66, 0xad}, true, false, 2},
        Case{"repe cmpsb", {0xf3, 0xa6}, true, true, 1}, Case{"repne scasb", {0xf2, 0xae}, false, true, 1}}) {
    INFO(c.what);
    Machine m;
    m.enter(Mode::kProtected32, 3);
    sev::VmsaSegment& s = c.destination ? m.vmsa.es : m.vmsa.ds;
    s.limit = kEnd - 1;
    s.attributes &= static_cast<std::uint16_t>(~0x800U);
    m.put(kData, std::array<std::byte, 0x300>{});
    m.vmsa.rax = 0x11;
    m.vmsa.rcx = 0x20;
    m.vmsa.rsi = c.destination ? kData : kEnd - 8 * c.size;
    m.vmsa.rdi = c.destination ? kEnd - 8 * c.size : kData;
    m.code(c.code);
    REQUIRE(m.run().code == ghcb::kExitVmgexit);
    CHECK(m.vector() == kVectorGp);
    CHECK(m.stacked(0) == 0);
    CHECK(m.stacked(1) == kCode);
    CHECK(m.vmsa.rcx == 0x20 - 8);
    if (c.destination) CHECK(m.vmsa.rdi == kEnd);
    CHECK(m.get<std::uint8_t>(kEnd) == 0);
  }
}

TEST_CASE("a string that is counted out does not look at its segments, and goes down to the segment's start") {
  Machine m;
  m.enter(Mode::kProtected32, 3);
  m.vmsa.es.limit = 0xff;
  m.vmsa.es.attributes &= static_cast<std::uint16_t>(~0x800U);
  m.vmsa.rdi = kData;
  m.vmsa.rcx = 0;
  m.code({0xf3, 0xaa});
  REQUIRE(m.run().code == ghcb::kExitVmgexit);
  CHECK(m.vector() == -1);

  // Expand-down: what is above the limit is within (4.7.2).
  m.enter(Mode::kProtected32, 3);
  m.vmsa.es.limit = kData + 0xff;
  m.vmsa.es.attributes = static_cast<std::uint16_t>((m.vmsa.es.attributes & ~0x800U) | 0x4);
  m.vmsa.rflags |= 1 << 10;
  m.vmsa.rdi = kData + 0x10f;
  m.vmsa.rcx = 0x20;
  m.code({0xf3, 0xaa});
  REQUIRE(m.run().code == ghcb::kExitVmgexit);
  CHECK(m.vector() == kVectorGp);
  CHECK(m.vmsa.rcx == 0x10);
  CHECK(m.vmsa.rdi == kData + 0xff);
}

TEST_CASE("XLAT reads within its segment") {
  Machine m;
  for (const unsigned index : {0x0fU, 0x10U}) {
    m.enter(Mode::kProtected32, 3);
    m.vmsa.ds.limit = kData + 0xf;
    m.vmsa.ds.attributes &= static_cast<std::uint16_t>(~0x800U);
    m.put(kData, std::array<std::uint64_t, 4>{});
    m.vmsa.rbx = kData;
    m.vmsa.rax = index;
    m.code({0xd7});
    REQUIRE(m.run().code == ghcb::kExitVmgexit);
    CHECK(m.vector() == (index == 0xf ? -1 : kVectorGp));
  }
}
