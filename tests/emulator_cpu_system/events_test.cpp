// Exceptions, interrupts and their frames in each mode.
#include <catch2/catch.hpp>

#include "emulator/cpu/state/registers.hpp"
#include "machine.hpp"

using namespace sevisor;
using namespace sevisor::emulator;
using namespace sevisor::emulator::test;

namespace {

constexpr std::uint64_t kResume = 1 << 16;
const Bytes kUd2 = {0x0f, 0x0b};
const Bytes kHlt = {0xf4};

std::uint64_t inject(unsigned vector, unsigned type, bool has_error = false, std::uint32_t error = 0) {
  return vector | type << 8 | (has_error ? 1U << 11 : 0U) | std::uint64_t{1} << 31 | std::uint64_t{error} << 32;
}
constexpr unsigned kExternal = 0;
constexpr unsigned kNmi = 2;
constexpr unsigned kException = 3;
constexpr unsigned kSoftware = 4;

}  // namespace

TEST_CASE("#UD is delivered in every mode") {
  Machine m;
  SECTION("real") {
    m.enter(Mode::kReal);
    m.vmsa.rflags |= 0x200;
    m.code(kUd2);
    REQUIRE(m.run().code == ghcb::kExitVmgexit);
    CHECK(m.vector() == kVectorUd);
    CHECK(m.vmsa.rsp == 0x8000 - 6);
    CHECK(m.stacked(0) == 0);
    CHECK(m.stacked(1) == 0x1000);
    CHECK(m.stacked(2) == 0x202);
    CHECK((m.vmsa.rflags & 0x200) == 0);
  }
  SECTION("protected, 32-bit gate") {
    m.enter(Mode::kProtected32);
    m.vmsa.rflags |= 0x200;
    m.code(kUd2);
    REQUIRE(m.run().code == ghcb::kExitVmgexit);
    CHECK(m.vector() == kVectorUd);
    CHECK(m.vmsa.rsp == kStack - 12);
    CHECK(m.stacked(0) == kCode);
    CHECK(m.stacked(1) == kCode32);
    CHECK(m.stacked(2) == (0x202 | kResume));
    CHECK((m.vmsa.rflags & 0x200) == 0);
  }
  SECTION("protected, 16-bit trap gate") {
    m.enter(Mode::kProtected16);
    m.set_gate(kVectorUd, 7);
    m.frame_width = 2;
    m.vmsa.rflags |= 0x200;
    m.code(kUd2);
    REQUIRE(m.run().code == ghcb::kExitVmgexit);
    CHECK(m.vector() == kVectorUd);
    CHECK(m.vmsa.rsp == kStack - 6);
    CHECK(m.stacked(0) == 0);
    CHECK(m.stacked(1) == kCode16);
    CHECK(m.stacked(2) == 0x202);
    CHECK((m.vmsa.rflags & 0x200) != 0);  // a trap gate leaves IF
  }
  SECTION("long, same privilege, unaligned stack") {
    m.enter(Mode::kLong64);
    m.vmsa.rsp = kStack - 3;
    m.code(kUd2);
    REQUIRE(m.run().code == ghcb::kExitVmgexit);
    CHECK(m.vector() == kVectorUd);
    CHECK(m.vmsa.rsp == kStack - 16 - 40);
    CHECK(m.stacked(0) == kCode);
    CHECK(m.stacked(1) == kCode64);
    CHECK(m.stacked(2) == (2 | kResume));
    CHECK(m.stacked(3) == kStack - 3);
    CHECK(m.stacked(4) == kData0);
    CHECK(m.vmsa.ss.selector == kData0);  // unchanged without a change of privilege
  }
  SECTION("long, from user, on RSP0") {
    m.enter(Mode::kLong64, 3);
    m.code(kUd2);
    REQUIRE(m.run().code == ghcb::kExitVmgexit);
    CHECK(m.vector() == kVectorUd);
    CHECK(m.vmsa.cpl == 0);
    CHECK(m.vmsa.cs.selector == kCode64);
    CHECK(m.vmsa.ss.selector == 0);
    CHECK(m.vmsa.rsp == kRing0Stack - 40);
    CHECK(m.stacked(1) == (kUserCode64 | 3));
    CHECK(m.stacked(3) == kUserStack);
    CHECK(m.stacked(4) == (kUserData | 3));
  }
  SECTION("long, from compatibility mode, on an IST stack") {
    m.enter(Mode::kCompat32, 3);
    m.set_gate(kVectorUd, 14, 0, 1);
    m.code(kUd2);
    REQUIRE(m.run().code == ghcb::kExitVmgexit);
    CHECK(m.vector() == kVectorUd);
    CHECK(m.vmsa.rsp == kIstStack - 40);
    CHECK(m.stacked(1) == (kUserCode32 | 3));
    CHECK((m.vmsa.cs.attributes & kSegLong) != 0);
  }
  SECTION("protected, from user, on the TSS's stack") {
    m.enter(Mode::kProtected32, 3);
    m.code(kUd2);
    REQUIRE(m.run().code == ghcb::kExitVmgexit);
    CHECK(m.vmsa.cpl == 0);
    CHECK(m.vmsa.ss.selector == kData0);
    CHECK(m.vmsa.rsp == kRing0Stack - 20);
    CHECK(m.stacked(3) == kUserStack);
    CHECK(m.stacked(4) == (kUserData | 3));
  }
}

TEST_CASE("Handlers return by IRET to where they were called from") {
  Machine m;
  const Mode mode = GENERATE(Mode::kReal, Mode::kProtected32, Mode::kLong64, Mode::kCompat32);
  const unsigned cpl = mode == Mode::kReal ? 0 : GENERATE(0U, 3U);
  m.enter(mode, cpl);
  if (mode != Mode::kReal) m.set_gate(3, 14, 3);
  const auto before = m.vmsa;
  m.code({0xcc});  // INT3
  REQUIRE(m.run().code == ghcb::kExitVmgexit);
  CHECK(m.vector() == kVectorBp);
  CHECK(m.stacked(0) == before.rip + 1);
  REQUIRE(m.run().code == ghcb::kExitVmgexit);
  CHECK(m.vmsa.rip == before.rip + 1 + kVmgexit.size());
  CHECK(m.vmsa.rsp == before.rsp);
  CHECK(m.vmsa.cpl == cpl);
  CHECK(m.vmsa.cs.selector == before.cs.selector);
  CHECK(m.vmsa.cs.attributes == before.cs.attributes);
  CHECK(m.vmsa.ss.selector == before.ss.selector);
  CHECK(m.vmsa.rflags == before.rflags);
}

TEST_CASE("Software interrupts check the gate's privilege") {
  Machine m;
  m.enter(Mode::kLong64, 3);
  const Bytes int_21 = {0xcd, 0x15};
  SECTION("DPL 0: #GP with the gate, EXT clear, at the instruction") {
    m.code(int_21);
    REQUIRE(m.run().code == ghcb::kExitVmgexit);
    CHECK(m.vector() == kVectorGp);
    CHECK(m.stacked(0) == 0x15 * 8 + 2);
    CHECK(m.stacked(1) == kCode);
  }
  SECTION("DPL 3") {
    m.set_gate(0x15, 14, 3);
    m.code(int_21);
    REQUIRE(m.run().code == ghcb::kExitVmgexit);
    CHECK(m.vector() == 0x15);
    CHECK(m.stacked(0) == kCode + 2);
    CHECK((m.stacked(2) & kResume) == 0);
  }
  SECTION("not present") {
    m.set_gate(0x15, 14, 3, 0, false);
    m.code(int_21);
    REQUIRE(m.run().code == ghcb::kExitVmgexit);
    CHECK(m.vector() == kVectorNp);
    CHECK(m.stacked(0) == 0x15 * 8 + 2);
  }
  SECTION("beyond the limit") {
    m.vmsa.idtr.limit = 0x15 * 16 - 1 + 15;
    m.set_gate(0x15, 14, 3);
    m.code(int_21);
    REQUIRE(m.run().code == ghcb::kExitVmgexit);
    CHECK(m.vector() == kVectorGp);
    CHECK(m.stacked(0) == 0x15 * 8 + 2);
  }
  SECTION("a 32-bit gate type that long mode does not know") {
    m.set_gate(0x15, 6, 3);
    m.code(int_21);
    REQUIRE(m.run().code == ghcb::kExitVmgexit);
    CHECK(m.vector() == kVectorGp);
  }
}

TEST_CASE("A task gate is an intercepted task switch") {
  Machine m;
  m.enter(Mode::kProtected32);
  m.set_gate(0x15, 5);
  m.code({0xcd, 0x15});
  REQUIRE(m.run().code == ghcb::kExitVmgexit);
  CHECK(m.vector() == kVectorVc);
  CHECK(m.stacked(0) == ghcb::kExitTaskSwitch);
}

TEST_CASE("Faults in delivery combine to double faults and shutdown") {
  Machine m;
  m.enter(Mode::kLong64);
  const Bytes load_null = {0x31, 0xc0, 0x8e, 0xd8, 0x8b, 0x04, 0x25, 0x00, 0x00, 0x20, 0x00};  // mov eax, [0x200000]
  SECTION("contributory in contributory") {
    m.set_gate(kVectorGp, 14, 0, 0, false);  // #NP for #GP
    m.code({0x0f, 0x30});                    // WRMSR of a read-only one
    m.vmsa.rcx = 0xc0010131;
    REQUIRE(m.run().code == ghcb::kExitVmgexit);
    CHECK(m.vector() == kVectorDf);
    CHECK(m.stacked(0) == 0);
  }
  SECTION("contributory in a page fault") {
    m.set_gate(kVectorPf, 14, 0, 0, false);
    m.code(load_null);
    REQUIRE(m.run().code == ghcb::kExitVmgexit);
    CHECK(m.vector() == kVectorDf);
    CHECK(m.vmsa.cr2 == 0x200000);
  }
  SECTION("#VC is contributory") {
    m.set_gate(kVectorVc, 14, 0, 0, false);
    m.code({0x0f, 0xa2});
    REQUIRE(m.run().code == ghcb::kExitVmgexit);
    CHECK(m.vector() == kVectorDf);
  }
  SECTION("a benign one first: served in turn, with EXT") {
    m.set_gate(kVectorUd, 14, 0, 0, false);
    m.code(kUd2);
    REQUIRE(m.run().code == ghcb::kExitVmgexit);
    CHECK(m.vector() == kVectorNp);
    CHECK(m.stacked(0) == kVectorUd * 8 + 3);
  }
  SECTION("no handler for the double fault") {
    m.set_gate(kVectorGp, 14, 0, 0, false);
    m.set_gate(kVectorDf, 14, 0, 0, false);
    m.code({0x0f, 0x30});
    m.vmsa.rcx = 0xc0010131;
    CHECK(m.run().code == ghcb::kExitShutdown);
    CHECK(m.vmsa.rip == kCode);
  }
  SECTION("no IDT at all") {
    m.vmsa.idtr.limit = 0;
    m.code(kUd2);
    CHECK(m.run().code == ghcb::kExitShutdown);
  }
}

TEST_CASE("A page fault reports its address and cause") {
  Machine m;
  m.enter(Mode::kLong64);
  m.code({0xc7, 0x04, 0x25, 0x34, 0x12, 0x20, 0x00, 0, 0, 0, 0});  // mov dword [0x201234], 0
  REQUIRE(m.run().code == ghcb::kExitVmgexit);
  CHECK(m.vector() == kVectorPf);
  CHECK(m.stacked(0) == 2);
  CHECK(m.stacked(1) == kCode);
  CHECK(m.vmsa.cr2 == 0x201234);
}

TEST_CASE("The hypervisor injects interrupts, NMIs and exceptions") {
  Machine m;
  m.enter(Mode::kLong64);
  m.vmsa.rflags |= 0x200;
  m.code(kHlt);
  SECTION("an external interrupt") {
    m.controls.event_injection = inject(0x1e, kExternal);
    REQUIRE(m.run().code == ghcb::kExitVmgexit);
    CHECK(m.vector() == 0x1e);
    CHECK(m.stacked(0) == kCode);
    CHECK(m.stacked(2) == 0x202);  // no RF
  }
  SECTION("an NMI takes vector 2 whatever is given") {
    m.controls.event_injection = inject(0x1e, kNmi);
    REQUIRE(m.run().code == ghcb::kExitVmgexit);
    CHECK(m.vector() == kVectorNmi);
  }
  SECTION("an exception with an error code") {
    m.controls.event_injection = inject(kVectorGp, kException, true, 0x1234);
    REQUIRE(m.run().code == ghcb::kExitVmgexit);
    CHECK(m.vector() == kVectorGp);
    CHECK(m.stacked(0) == 0x1234);
  }
  SECTION("#DB is not intercepted a second time") {
    m.controls.event_injection = inject(kVectorDb, kException);
    REQUIRE(m.run().code == ghcb::kExitVmgexit);
    CHECK(m.vector() == kVectorDb);
  }
  SECTION("#VC, as an attacker would") {
    m.controls.event_injection = inject(kVectorVc, kException, true, 0x81);
    REQUIRE(m.run().code == ghcb::kExitVmgexit);
    CHECK(m.vector() == kVectorVc);
    CHECK(m.stacked(0) == 0x81);
  }
  SECTION("what SEV-ES forbids makes VMRUN fail") {
    m.controls.event_injection =
        GENERATE(inject(0x80, kSoftware), inject(kVectorBp, kException), inject(kVectorOf, kException));
    CHECK(m.run().code == ghcb::kExitInvalid);
    CHECK(m.vmsa.rip == kCode);
  }
  SECTION("an interrupt that shuts the guest down is named again") {
    m.vmsa.idtr.limit = 0;
    m.controls.event_injection = inject(0x1e, kExternal);
    CHECK(m.run().code == ghcb::kExitShutdown);
  }
}

TEST_CASE("Interrupt windows open when an interrupt could be taken") {
  Machine m;
  m.enter(Mode::kLong64);
  m.controls.interrupt_window = true;
  SECTION("at once") {
    m.vmsa.rflags |= 0x200;
    m.code(kHlt);
    CHECK(m.run().code == ghcb::kExitVintr);
    CHECK(m.vmsa.rip == kCode);
  }
  SECTION("one instruction after STI") {
    m.code({0xfb, 0x90, 0x90});
    CHECK(m.run().code == ghcb::kExitVintr);
    CHECK(m.vmsa.rip == kCode + 2);
  }
  SECTION("STI; HLT sleeps with interrupts on") {
    m.code({0xfb, 0xf4});
    CHECK(m.run().code == ghcb::kExitHlt);
    CHECK(m.cpu.interrupts_enabled());
    CHECK_FALSE(m.cpu.interrupt_shadow());
    CHECK(m.vmsa.rip == kCode + 2);
  }
  SECTION("STI; CLI never opens it") {
    m.code({0xfb, 0xfa});
    CHECK(m.run().code == ghcb::kExitVmgexit);
  }
  SECTION("POPF opens it at once") {
    m.code({0x68, 0x02, 0x02, 0, 0, 0x9d, 0x90});
    CHECK(m.run().code == ghcb::kExitVintr);
    CHECK(m.vmsa.rip == kCode + 6);
  }
  SECTION("MOV SS holds it back") {
    m.code({0xfb, 0x8e, 0xd0, 0x90, 0x90});
    m.vmsa.rax = kData0;
    CHECK(m.run().code == ghcb::kExitVintr);
    CHECK(m.vmsa.rip == kCode + 4);
  }
}

TEST_CASE("Single-stepping traps after each instruction, as #VC for #DB") {
  Machine m;
  m.enter(Mode::kLong64);
  m.vmsa.rflags |= 0x100;
  m.code({0x90, 0x90});
  REQUIRE(m.run().code == ghcb::kExitVmgexit);
  CHECK(m.vector() == kVectorVc);
  CHECK(m.stacked(0) == ghcb::kExitExceptionDb);
  CHECK(m.stacked(1) == kCode + 1);
  CHECK((m.stacked(3) & 0x100) != 0);
  CHECK((m.vmsa.rflags & 0x100) == 0);
  CHECK((m.vmsa.dr6 & 1U << 14) != 0);
}

TEST_CASE("A guest that only faults uses up its time") {
  Machine m;
  m.enter(Mode::kLong64);
  m.poke(kHandlers + kVectorUd * 8, kUd2);
  m.vmsa.rsp = kHandlers - 0x100;
  SECTION("in its handler") {
    m.set_gate(kVectorUd, 14, 0, 1);  // the stack does not grow
    m.code(kUd2);
  }
  SECTION("in its fetches") {
    m.set_gate(kVectorPf, 14, 0, 1);
    m.put(kIdt + kVectorPf * 16, (m.get<std::uint64_t>(kIdt + kVectorPf * 16) & ~0xffffULL));
    m.put(kIdt + kVectorPf * 16 + 8, std::uint64_t{0x7000});
    m.vmsa.rip = 0x7000'0000'0000;
  }
  CHECK(m.run().code == ghcb::kExitIntr);
}
