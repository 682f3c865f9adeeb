// Far jumps, calls and returns, call gates, IRET's checks, SYSCALL and SYSENTER.
#include <catch2/catch.hpp>

#include "machine.hpp"

using namespace sevisor;
using namespace sevisor::emulator;
using namespace sevisor::emulator::test;

namespace {

constexpr std::uint64_t kTarget = kCode + 0x800;

Bytes far_pointer32(std::uint8_t opcode, std::uint64_t offset, std::uint16_t selector) {
  return {opcode,
          static_cast<std::uint8_t>(offset),
          static_cast<std::uint8_t>(offset >> 8),
          static_cast<std::uint8_t>(offset >> 16),
          static_cast<std::uint8_t>(offset >> 24),
          static_cast<std::uint8_t>(selector),
          static_cast<std::uint8_t>(selector >> 8)};
}
constexpr std::uint8_t kJmpFar = 0xea;
constexpr std::uint8_t kCallFar = 0x9a;

std::uint64_t gate(std::uint64_t offset, std::uint16_t selector, unsigned type, unsigned dpl, unsigned parameters = 0) {
  return (offset & 0xffff) | std::uint64_t{selector} << 16 | std::uint64_t{parameters} << 32 |
         std::uint64_t{type} << 40 | std::uint64_t{dpl} << 45 | std::uint64_t{1} << 47 | (offset & 0xffff'0000) << 32;
}

}  // namespace

TEST_CASE("Far jumps in real mode") {
  Machine m;
  m.enter(Mode::kReal);
  m.poke(0x12345, kVmgexit);
  m.code({0xea, 0x45, 0x03, 0x00, 0x12});  // 0x1200:0x0345
  REQUIRE(m.run().code == ghcb::kExitVmgexit);
  CHECK(m.vmsa.cs.selector == 0x1200);
  CHECK(m.vmsa.cs.base == 0x12000);
  CHECK(m.vmsa.rip == 0x349);
}

TEST_CASE("Far calls and returns in real mode") {
  Machine m;
  m.enter(Mode::kReal);
  m.poke(0x12345, {0xcb});
  m.code({0x9a, 0x45, 0x03, 0x00, 0x12});
  REQUIRE(m.run().code == ghcb::kExitVmgexit);
  CHECK(m.vmsa.cs.selector == 0x1000);
  CHECK(m.vmsa.rip == 5 + 4);
  CHECK(m.vmsa.rsp == 0x8000);
  CHECK(m.get<std::uint16_t>(0x7ffe) == 0x1000);
  CHECK(m.get<std::uint16_t>(0x7ffc) == 5);
}

TEST_CASE("Far jumps in protected mode check the descriptor") {
  Machine m;
  m.enter(Mode::kProtected32);
  m.poke(kTarget, kVmgexit);
  struct Case {
    const char* what;
    std::uint16_t selector;
    std::uint64_t raw;
    int vector;  // -1: taken
    std::uint32_t error;
  };
  const std::uint16_t code = kAttrCode32;
  const std::vector<Case> cases = {
      {"good", kSpare, descriptor(0, 0xfffff, code), -1, 0},
      {"null", 0, 0, kVectorGp, 0},
      {"null with RPL", 3, 0, kVectorGp, 0},
      {"data", kSpare, descriptor(0, 0xfffff, kAttrData), kVectorGp, kSpare},
      {"not present", kSpare, descriptor(0, 0xfffff, code & ~0x80), kVectorNp, kSpare},
      {"DPL 3, not conforming", kSpare, descriptor(0, 0xfffff, code | kAttrUser), kVectorGp, kSpare},
      {"RPL above CPL", kSpare | 3, descriptor(0, 0xfffff, code), kVectorGp, kSpare},
      {"beyond the table", kGdtSize, 0, kVectorGp, kGdtSize},
      {"in an absent LDT", kSpare | 4, descriptor(0, 0xfffff, code), kVectorGp, kSpare | 4},
      {"offset beyond the limit", kSpare, descriptor(0, 0xf, code), kVectorGp, 0},
      {"conforming, DPL 0, RPL 3", kSpare | 3, descriptor(0, 0xfffff, code | 4), -1, 0},
      {"task state segment", kTssSelector, descriptor(kTss, 0x1ff, 0x89), kVectorVc,
       static_cast<std::uint32_t>(ghcb::kExitTaskSwitch)},
  };
  for (const Case& c : cases) {
    INFO(c.what);
    m.enter(Mode::kProtected32);
    if (c.selector >= 8 && c.selector < kGdtSize) m.set_descriptor(c.selector, c.raw);
    m.code(far_pointer32(kJmpFar, kTarget, c.selector));
    REQUIRE(m.run().code == ghcb::kExitVmgexit);
    if (c.vector < 0) {
      CHECK(m.vmsa.rip == kTarget + 4);
      CHECK(m.vmsa.cs.selector == (c.selector & ~3));  // RPL is CPL
      CHECK((m.get<std::uint64_t>(kGdt + (c.selector & ~7U)) >> 40 & 1) != 0);
    } else {
      CHECK(m.vector() == c.vector);
      CHECK(m.stacked(0) == c.error);
      CHECK(m.stacked(1) == kCode);
    }
  }
}

// OVMF's application processors go back to real mode this way, from code above 1 MiB.
TEST_CASE("16-bit code runs above 64 KiB where its segment reaches, also when protection goes off") {
  static_assert(kTarget > 0xffff);
  constexpr std::uint16_t kAttrBigCode16 = kAttrCode16 | 0x800;  // 4 GiB
  Machine m;
  m.enter(Mode::kProtected32);
  m.set_descriptor(kSpare, descriptor(0, 0xfffff, kAttrBigCode16));
  m.vmsa.rax = kSpare;
  m.vmsa.rbx = kTarget;
  m.code({0x50, 0x53, 0xcb});  // push eax; push ebx; retf
  // mov eax, cr0; and al, 0xfe; mov cr0, eax; mov cx, 0x1234
  m.poke(kTarget, {0x0f, 0x20, 0xc0, 0x24, 0xfe, 0x0f, 0x22, 0xc0, 0xb9, 0x34, 0x12, 0xf3, 0x0f, 0x01, 0xd9});
  REQUIRE(m.run_through_traps().code == ghcb::kExitVmgexit);
  CHECK(m.vmsa.rip == kTarget + 15);
  CHECK((m.vmsa.cr0 & kCr0Pe) == 0);
  CHECK(m.vmsa.rcx == 0x1234);
}

TEST_CASE("Code that runs past 64 KiB in real mode meets its segment's limit") {
  Machine m;
  m.enter(Mode::kReal);
  m.vmsa.rip = 0xffff;
  m.poke(0x1ffff, {0x90, 0x90});
  REQUIRE(m.run().code == ghcb::kExitVmgexit);
  CHECK(m.vector() == kVectorGp);
}

TEST_CASE("Far transfers between compatibility and 64-bit mode") {
  Machine m;
  m.enter(Mode::kCompat32);
  m.poke(kTarget, kVmgexit);
  SECTION("a jump to 64-bit code") {
    m.code(far_pointer32(kJmpFar, kTarget, kCode64));
    REQUIRE(m.run().code == ghcb::kExitVmgexit);
    CHECK(m.vmsa.cs.selector == kCode64);
    CHECK((m.vmsa.cs.attributes & kSegLong) != 0);
    CHECK(m.vmsa.rip == kTarget + 4);
  }
  SECTION("a code segment with both L and D") {
    m.set_descriptor(kSpare, descriptor(0, 0xfffff, kAttrCode64 | kSegDefault));
    m.code(far_pointer32(kJmpFar, kTarget, kSpare));
    REQUIRE(m.run().code == ghcb::kExitVmgexit);
    CHECK(m.vector() == kVectorGp);
    CHECK(m.stacked(0) == kSpare);
  }
  SECTION("a far return from 64-bit to compatibility mode") {
    m.enter(Mode::kLong64);
    m.poke(kTarget, {0x31, 0xc0, 0xf3, 0x0f, 0x01, 0xd9});
    m.code({0x6a, 0x18, 0x68, 0x00, 0x08, 0x01, 0x00, 0x48, 0xcb});  // push kCode32; push kTarget; retfq
    REQUIRE(m.run().code == ghcb::kExitVmgexit);
    CHECK(m.vmsa.cs.selector == kCode32);
    CHECK(m.vmsa.rip == kTarget + 6);
    CHECK(m.vmsa.rsp == kStack);
  }
  SECTION("an indirect jump with a 64-bit offset") {
    m.enter(Mode::kLong64);
    m.put(kData, kTarget);
    m.put(kData + 8, kCode64);
    m.vmsa.rbx = kData;
    m.code({0x48, 0xff, 0x2b});
    REQUIRE(m.run().code == ghcb::kExitVmgexit);
    CHECK(m.vmsa.rip == kTarget + 4);
  }
}

TEST_CASE("Call gates change privilege and stack") {
  Machine m;
  SECTION("32-bit, with parameters, and RET back") {
    m.enter(Mode::kProtected32, 3);
    m.put(kGdt + kCallGate, gate(kTarget, kCode32, 12, 3, 2));
    m.put(kUserStack - 8, std::uint32_t{0x11111111});
    m.put(kUserStack - 4, std::uint32_t{0x22222222});
    m.vmsa.rsp = kUserStack - 8;
    m.poke(kTarget, {0xf3, 0x0f, 0x01, 0xd9, 0xca, 0x08, 0x00});  // VMGEXIT; RETF 8
    m.code(far_pointer32(kCallFar, 0xdead, kCallGate | kUserRpl));
    REQUIRE(m.run().code == ghcb::kExitVmgexit);
    CHECK(m.vmsa.cpl == 0);
    CHECK(m.vmsa.cs.selector == kCode32);
    CHECK(m.vmsa.ss.selector == kData0);
    CHECK(m.vmsa.rsp == kRing0Stack - 24);
    CHECK(m.stacked(0) == kCode + 7);
    CHECK(m.stacked(1) == (kUserCode32 | 3));
    CHECK(m.stacked(2) == 0x11111111);
    CHECK(m.stacked(3) == 0x22222222);
    CHECK(m.stacked(4) == kUserStack - 8);
    CHECK(m.stacked(5) == (kUserData | 3));
    REQUIRE(m.run().code == ghcb::kExitVmgexit);
    CHECK(m.vmsa.cpl == 3);
    CHECK(m.vmsa.rip == kCode + 7 + 4);
    CHECK(m.vmsa.rsp == kUserStack);
    CHECK(m.vmsa.ss.selector == (kUserData | 3));
  }
  SECTION("64-bit") {
    m.enter(Mode::kLong64, 3);
    m.put(kGdt + kCallGate, gate(kTarget, kCode64, 12, 3));
    m.put(kGdt + kCallGate + 8, std::uint64_t{0});
    m.put(kData + 4, static_cast<std::uint16_t>(kCallGate | 3));
    m.vmsa.rbx = kData;
    m.poke(kTarget, {0xf3, 0x0f, 0x01, 0xd9, 0x48, 0xcb});
    m.code({0xff, 0x1b});
    REQUIRE(m.run().code == ghcb::kExitVmgexit);
    CHECK(m.vmsa.cpl == 0);
    CHECK(m.vmsa.ss.selector == 0);
    CHECK(m.vmsa.rsp == kRing0Stack - 32);
    CHECK(m.stacked(0) == kCode + 2);
    CHECK(m.stacked(2) == kUserStack);
    REQUIRE(m.run().code == ghcb::kExitVmgexit);
    CHECK(m.vmsa.cpl == 3);
    CHECK(m.vmsa.rip == kCode + 2 + 4);
    CHECK(m.vmsa.rsp == kUserStack);
  }
  SECTION("a gate for more privilege than the caller has") {
    m.enter(Mode::kProtected32, 3);
    m.put(kGdt + kCallGate, gate(kTarget, kCode32, 12, 0));
    m.code(far_pointer32(kCallFar, 0, kCallGate | kUserRpl));
    REQUIRE(m.run().code == ghcb::kExitVmgexit);
    CHECK(m.vector() == kVectorGp);
    CHECK(m.stacked(0) == kCallGate);
  }
}

TEST_CASE("IRET in 64-bit mode checks what it loads") {
  Machine m;
  struct Case {
    const char* what;
    std::uint64_t rip, cs, rsp, ss;
    int vector;
    std::uint32_t error;
  };
  const std::uint64_t user = kUserCode64 | 3;
  const std::uint64_t stack = kUserData | 3;
  const std::vector<Case> cases = {
      {"to user", kTarget, user, kUserStack, stack, -1, 0},
      {"to 32-bit user", kTarget, kUserCode32 | 3, kUserStack, stack, -1, 0},
      {"to the kernel, null SS", kTarget, kCode64, kStack - 64, 0, -1, 0},
      {"null CS", kTarget, 0, kStack, kData0, kVectorGp, 0},
      {"CS with RPL 3 and DPL 0", kTarget, kCode64 | 3, kUserStack, stack, kVectorGp, kCode64},
      {"data as CS", kTarget, kData0, kStack, kData0, kVectorGp, kData0},
      {"null SS for user", kTarget, user, kUserStack, 3, kVectorGp, 0},
      {"SS of the kernel for user", kTarget, user, kUserStack, kData0, kVectorGp, kData0},
      {"code as SS", kTarget, kCode64, kStack, kCode64, kVectorGp, kCode64},
      {"RIP not canonical", 0x0000'8000'0000'0000, user, kUserStack, stack, kVectorGp, 0},
  };
  for (const Case& c : cases) {
    INFO(c.what);
    m.enter(Mode::kLong64);
    m.poke(kTarget, kVmgexit);
    m.vmsa.rsp = kStack - 0x200;
    const std::uint64_t frame[5] = {c.rip, c.cs, 0x3246, c.rsp, c.ss};
    for (unsigned i = 0; i < 5; ++i) m.put(m.vmsa.rsp + i * 8, frame[i]);
    m.code({0x48, 0xcf});
    REQUIRE(m.run().code == ghcb::kExitVmgexit);
    if (c.vector < 0) {
      CHECK(m.vmsa.rip == kTarget + 4);
      CHECK(m.vmsa.cs.selector == c.cs);
      CHECK(m.vmsa.ss.selector == c.ss);
      CHECK(m.vmsa.rsp == c.rsp);
      CHECK(m.vmsa.cpl == (c.cs & 3));
      CHECK(m.vmsa.rflags == 0x3246);
      CHECK(m.vmsa.ds.selector == ((c.cs & 3) == 3 ? 0 : kData0));  // DPL 0 data is taken from user code
    } else {
      CHECK(m.vector() == c.vector);
      CHECK(m.stacked(0) == c.error);
      CHECK(m.stacked(1) == kCode);
      CHECK(m.stacked(4) == kStack - 0x200);
    }
  }
}

TEST_CASE("User code cannot raise IOPL or IF by IRET or POPF") {
  Machine m;
  m.enter(Mode::kLong64, 3);
  SECTION("POPF") {
    m.code({0x68, 0xd7, 0x7f, 0x00, 0x00, 0x9d, 0x9c, 0x58});  // push 0x7fd7; popfq; pushfq; pop rax
    m.code({0x68, 0xd7, 0x7e, 0x00, 0x00, 0x9d, 0x9c, 0x58});  // without TF
    REQUIRE(m.run().code == ghcb::kExitVmgexit);
    CHECK(m.vmsa.rax == 0x4cd7);
  }
  SECTION("CLI and STI") {
    m.code(GENERATE(Bytes{0xfa}, Bytes{0xfb}));
    REQUIRE(m.run().code == ghcb::kExitVmgexit);
    CHECK(m.vector() == kVectorGp);
    CHECK(m.stacked(0) == 0);
  }
  SECTION("CLI with IOPL 3") {
    m.vmsa.rflags = 0x3202;
    m.code({0xfa});
    REQUIRE(m.run().code == ghcb::kExitVmgexit);
    CHECK(m.vmsa.rflags == 0x3002);
  }
}

TEST_CASE("SYSCALL and SYSRET") {
  Machine m;
  m.enter(Mode::kLong64, 3);
  m.vmsa.star = std::uint64_t{kUserCode32} << 48 | std::uint64_t{kCode64} << 32;
  m.vmsa.lstar = kTarget;
  m.vmsa.cstar = kTarget + 0x100;
  m.vmsa.sfmask = 0x47700;
  m.vmsa.rflags = 0x246;
  m.poke(kTarget, {0xf3, 0x0f, 0x01, 0xd9, 0x48, 0x0f, 0x07});
  m.poke(kTarget + 0x100, {0xf3, 0x0f, 0x01, 0xd9, 0x0f, 0x07});
  const Bytes syscall = {0x0f, 0x05};
  SECTION("64-bit") {
    m.code(syscall);
    REQUIRE(m.run().code == ghcb::kExitVmgexit);
    CHECK(m.vmsa.rip == kTarget + 4);
    CHECK(m.vmsa.cpl == 0);
    CHECK(m.vmsa.cs.selector == kCode64);
    CHECK(m.vmsa.ss.selector == kData0);
    CHECK(m.vmsa.rcx == kCode + 2);
    CHECK(m.vmsa.r11 == 0x246);
    CHECK(m.vmsa.rflags == 0x46);
    CHECK(m.vmsa.rsp == kUserStack);
    REQUIRE(m.run().code == ghcb::kExitVmgexit);
    CHECK(m.vmsa.rip == kCode + 2 + 4);
    CHECK(m.vmsa.cpl == 3);
    CHECK(m.vmsa.cs.selector == (kUserCode64 | 3));
    CHECK(m.vmsa.ss.selector == (kUserData | 3));
    CHECK(m.vmsa.rflags == 0x246);
  }
  SECTION("from compatibility mode") {
    const auto star = m.vmsa.star;
    const auto lstar = m.vmsa.lstar;
    const auto cstar = m.vmsa.cstar;
    m.enter(Mode::kCompat32, 3);
    m.vmsa.star = star;
    m.vmsa.lstar = lstar;
    m.vmsa.cstar = cstar;
    m.poke(kTarget + 0x100, {0xf3, 0x0f, 0x01, 0xd9, 0x0f, 0x07});
    m.code(syscall);
    REQUIRE(m.run().code == ghcb::kExitVmgexit);
    CHECK(m.vmsa.rip == kTarget + 0x104);
    REQUIRE(m.run().code == ghcb::kExitVmgexit);
    CHECK(m.vmsa.cs.selector == (kUserCode32 | 3));
    CHECK((m.vmsa.cs.attributes & kSegLong) == 0);
    CHECK(m.vmsa.rip == kCode + 2 + 4);
  }
  SECTION("without EFER.SCE") {
    m.vmsa.efer &= ~kEferSce;
    m.code(syscall);
    REQUIRE(m.run().code == ghcb::kExitVmgexit);
    CHECK(m.vector() == kVectorUd);
  }
  SECTION("SYSRET by user code") {
    m.code({0x48, 0x0f, 0x07});
    REQUIRE(m.run().code == ghcb::kExitVmgexit);
    CHECK(m.vector() == kVectorGp);
  }
}

TEST_CASE("SYSENTER and SYSEXIT exist in legacy mode only") {
  Machine m;
  m.enter(Mode::kProtected32, 3);
  m.vmsa.sysenter_cs = kSpare;
  m.vmsa.sysenter_esp = kRing0Stack;
  m.vmsa.sysenter_eip = kTarget;
  m.poke(kTarget, {0xf3, 0x0f, 0x01, 0xd9, 0x0f, 0x35});
  m.code({0x0f, 0x34});
  m.vmsa.rdx = kCode + 2;
  m.vmsa.rcx = kUserStack - 16;
  REQUIRE(m.run().code == ghcb::kExitVmgexit);
  CHECK(m.vmsa.rip == kTarget + 4);
  CHECK(m.vmsa.cpl == 0);
  CHECK(m.vmsa.rsp == kRing0Stack);
  REQUIRE(m.run().code == ghcb::kExitVmgexit);
  CHECK(m.vmsa.rip == kCode + 2 + 4);
  CHECK(m.vmsa.rsp == kUserStack - 16);
  CHECK(m.vmsa.cs.selector == (kSpare + 16) + 3);
  m.enter(Mode::kLong64, 3);
  m.code({0x0f, 0x34});
  REQUIRE(m.run().code == ghcb::kExitVmgexit);
  CHECK(m.vector() == kVectorUd);
}
