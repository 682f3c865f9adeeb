#include "ghcb/guest/vc_handler.hpp"

#include <catch2/catch.hpp>

#include "ghcb/ioio.hpp"
#include "tests/ghcb_guest/fake_platform.hpp"

namespace {
using namespace sevisor::ghcb;
using namespace sevisor::ghcb::guest;
using sevisor::test::answer;
using sevisor::test::FakePlatform;
using sevisor::test::succeed;
using Outcome = VcResult::Outcome;

struct Machine {
  FakePlatform platform;
  Registers registers;
  VcHandler handler{platform, 1};

  explicit Machine(std::vector<std::uint8_t> code) {
    platform.code = std::move(code);
    registers.rip = FakePlatform::kCode;
    for (unsigned i = 0; i < 16; ++i) registers.general[i] = 0x1111'1111'1111'1111u * i;
  }
  VcResult handle(std::uint64_t error_code) { return handler.handle(registers, error_code); }
  // That nothing but the RIP-relevant outcome happened to the registers.
  void require_untouched(const Registers& before) const {
    REQUIRE(std::equal(std::begin(before.general), std::end(before.general), std::begin(registers.general)));
    REQUIRE(before.rip == registers.rip);
  }
};

TEST_CASE("CPUID asks for a leaf and takes four registers", "[ghcb_guest]") {
  Machine machine({0x0f, 0xa2});
  machine.registers.general[kRax] = 0xffffffff'0000000d;
  machine.registers.general[kRcx] = 1;
  machine.platform.hypervisor = [](Page& page) {
    page.rax = 0xaaaaaaaa'00000001;
    page.rbx = 2;
    page.rcx = 3;
    page.rdx = 4;
    succeed(page, {Field::kRax, Field::kRbx, Field::kRcx, Field::kRdx});
  };
  REQUIRE(machine.handle(kExitCpuid).outcome == Outcome::kResume);
  REQUIRE(machine.registers.general[kRax] == 1);
  REQUIRE(machine.registers.general[kRbx] == 2);
  REQUIRE(machine.registers.general[kRcx] == 3);
  REQUIRE(machine.registers.general[kRdx] == 4);
  REQUIRE(machine.registers.rip == FakePlatform::kCode + 2);

  const Page& request = machine.platform.last_request;
  REQUIRE(request.exit_code == 0x72);
  REQUIRE(request.rax == 0xd);
  REQUIRE(request.rcx == 1);
  REQUIRE(request.xcr0 == 7);
  REQUIRE(request.version == 1);
  REQUIRE(request.usage == 0);
  // Nothing that the event does not need goes out.
  REQUIRE(request.rbx == 0);
  REQUIRE(request.rip == 0);
  ValidBitmap expected{};
  for (const auto field :
       {Field::kRax, Field::kRcx, Field::kXcr0, Field::kExitCode, Field::kExitInfo1, Field::kExitInfo2}) {
    expected.set(field);
  }
  REQUIRE(request.valid == expected);
  // And nothing valid stays in the page.
  REQUIRE(machine.platform.page().valid == ValidBitmap{});
}

TEST_CASE("a reply without a register that is consumed is a violation", "[ghcb_guest]") {
  for (const Field missing : {Field::kRax, Field::kRbx, Field::kRcx, Field::kRdx}) {
    Machine machine({0x0f, 0xa2});
    const Registers before = machine.registers;
    machine.platform.hypervisor = [&](Page& page) {
      succeed(page, {});
      for (const auto field : {Field::kRax, Field::kRbx, Field::kRcx, Field::kRdx}) {
        if (field != missing) page.valid.set(field);
      }
    };
    REQUIRE(machine.handle(kExitCpuid).outcome == Outcome::kViolation);
    machine.require_untouched(before);
  }
}

TEST_CASE("a hypervisor that does not answer at all is a violation", "[ghcb_guest]") {
  Machine machine({0x0f, 0xa2});
  REQUIRE(machine.handle(kExitCpuid).outcome == Outcome::kViolation);
}

TEST_CASE("only #GP and #UD may be raised", "[ghcb_guest]") {
  struct Case {
    std::uint64_t info_1, info_2;
    Outcome outcome;
  };
  const Case cases[] = {
      {1, 0x8000030d, Outcome::kException},           // #GP as KVM sends it
      {1, 0x00000010'80000b0d, Outcome::kException},  // with an error code
      {1, 0x80000306, Outcome::kException},           // #UD
      {1, 0x8000030e, Outcome::kViolation},           // #PF
      {1, 0x8000000d, Outcome::kViolation},           // external interrupt 13
      {1, 0x0000030d, Outcome::kViolation},           // not valid
      {2, 6, Outcome::kRefused},                      // unsupported event
      {3, 0, Outcome::kViolation},
  };
  for (const auto& expected : cases) {
    Machine machine({0x0f, 0x32});
    const Registers before = machine.registers;
    machine.platform.hypervisor = [&](Page& page) { answer(page, expected.info_1, expected.info_2); };
    const VcResult result = machine.handle(kExitMsr);
    REQUIRE(result.outcome == expected.outcome);
    machine.require_untouched(before);
    if (result.outcome == Outcome::kException) REQUIRE(result.event == decode_event(expected.info_2));
  }
}

TEST_CASE("RDMSR and WRMSR", "[ghcb_guest]") {
  Machine read({0x0f, 0x32});
  read.registers.general[kRcx] = 0x1b;
  read.platform.hypervisor = [](Page& page) {
    page.rax = 0xfee00900;
    page.rdx = 0;
    succeed(page, {Field::kRax, Field::kRdx});
  };
  REQUIRE(read.handle(kExitMsr).outcome == Outcome::kResume);
  REQUIRE(read.platform.last_request.exit_info_1 == 0);
  REQUIRE(read.platform.last_request.rcx == 0x1b);
  REQUIRE(read.registers.general[kRax] == 0xfee00900);

  Machine write({0x0f, 0x30});
  write.registers.general[kRcx] = 0x277;
  write.registers.general[kRax] = 0xffffffff'00070406;
  write.registers.general[kRdx] = 0x00070406;
  write.platform.hypervisor = [](Page& page) { succeed(page, {}); };
  REQUIRE(write.handle(kExitMsr).outcome == Outcome::kResume);
  REQUIRE(write.platform.last_request.exit_info_1 == 1);
  REQUIRE(write.platform.last_request.rax == 0x00070406);
  REQUIRE(write.registers.rip == FakePlatform::kCode + 2);
}

TEST_CASE("an injected #VC at another instruction is refused without an exit", "[ghcb_guest]") {
  const std::vector<std::uint8_t> add = {0x48, 0x01, 0xd8};
  const std::vector<std::uint8_t> cpuid = {0x0f, 0xa2};
  const std::vector<std::uint8_t> vmgexit = {0xf3, 0x0f, 0x01, 0xd9};
  for (const std::uint64_t code :
       {0x27, 0x37, 0x6e, 0x6f, 0x72, 0x76, 0x7b, 0x7c, 0x81, 0x87, 0x89, 0x8a, 0x8b, 0x400}) {
    Machine machine(add);
    const Registers before = machine.registers;
    REQUIRE(machine.handle(code).outcome == Outcome::kRefused);
    machine.require_untouched(before);
    REQUIRE(machine.platform.exits == 0);
  }
  REQUIRE(Machine(cpuid).handle(kExitMsr).outcome == Outcome::kRefused);
  REQUIRE(Machine(vmgexit).handle(kExitVmmcall).outcome == Outcome::kRefused);
  REQUIRE(Machine({}).handle(kExitCpuid).outcome == Outcome::kRefused);
}

TEST_CASE("#DB and #AC are the guest's own", "[ghcb_guest]") {
  Machine machine({});
  REQUIRE(machine.handle(kExitExceptionDb).event.vector == 1);
  const VcResult alignment = machine.handle(kExitExceptionAc);
  REQUIRE(alignment.event.vector == 17);
  REQUIRE(alignment.event.has_error_code);
  REQUIRE(machine.platform.exits == 0);
}

TEST_CASE("OUT shows as many bytes as it writes", "[ghcb_guest][ioio]") {
  Machine machine({0xee});  // out dx, al
  machine.registers.general[kRdx] = 0xffff'0000'0000'03f8;
  machine.registers.general[kRax] = 0x1122334455667741;
  machine.platform.hypervisor = [](Page& page) { succeed(page, {}); };
  REQUIRE(machine.handle(kExitIoio).outcome == Outcome::kResume);
  REQUIRE(machine.platform.last_request.exit_info_1 == 0x03f8'0210);
  REQUIRE(machine.platform.last_request.rax == 0x41);
  REQUIRE(machine.registers.rip == FakePlatform::kCode + 1);
}

TEST_CASE("IN merges as many bytes as it reads", "[ghcb_guest][ioio]") {
  struct Case {
    std::vector<std::uint8_t> code;
    std::uint64_t info, rax;
  };
  const Case cases[] = {{{0xe4, 0x71}, 0x0071'0211, 0x11223344556677ef},
                        {{0x66, 0xed}, 0x0511'0221, 0x112233445566cdef},
                        {{0xed}, 0x0511'0241, 0x89abcdef}};
  for (const auto& expected : cases) {
    Machine machine(expected.code);
    machine.registers.general[kRdx] = 0x511;
    machine.registers.general[kRax] = 0x1122334455667788;
    machine.platform.hypervisor = [](Page& page) {
      page.rax = 0x01234567'89abcdef;
      succeed(page, {Field::kRax});
    };
    REQUIRE(machine.handle(kExitIoio).outcome == Outcome::kResume);
    REQUIRE(machine.platform.last_request.exit_info_1 == expected.info);
    REQUIRE(machine.platform.last_request.rax == 0);
    REQUIRE(machine.registers.general[kRax] == expected.rax);
  }
}

TEST_CASE("REP INSB comes in pieces of the shared buffer", "[ghcb_guest][ioio]") {
  Machine machine({0xf3, 0x6c});
  machine.registers.general[kRdx] = 0x511;
  machine.registers.general[kRcx] = 5000;
  machine.registers.general[kRdi] = FakePlatform::kMemory + 1;
  std::uint8_t next = 0;
  std::vector<std::uint64_t> counts;
  machine.platform.hypervisor = [&](Page& page) {
    REQUIRE(page.scratch == FakePlatform::kGhcb + 0x800);
    counts.push_back(page.exit_info_2);
    for (std::uint64_t i = 0; i < page.exit_info_2; ++i) page.shared_buffer[i] = next++;
    succeed(page, {});
  };
  while (machine.registers.rip == FakePlatform::kCode) {
    REQUIRE(machine.handle(kExitIoio).outcome == Outcome::kResume);
  }
  REQUIRE(counts == std::vector<std::uint64_t>{2032, 2032, 936});
  REQUIRE(machine.platform.last_request.exit_info_1 == 0x0511'021d);
  REQUIRE(machine.registers.general[kRcx] == 0);
  REQUIRE(machine.registers.general[kRdi] == FakePlatform::kMemory + 5001);
  for (unsigned i = 0; i < 5000; ++i) REQUIRE(machine.platform.memory[i + 1] == static_cast<std::uint8_t>(i));
  REQUIRE(machine.platform.memory[0] == 0);
  REQUIRE(machine.platform.memory[5001] == 0);
}

TEST_CASE("OUTSW goes backwards when DF says so, from the overridden segment", "[ghcb_guest][ioio]") {
  Machine machine({0x64, 0xf3, 0x66, 0x6f});
  machine.platform.bases[SegmentOverride::kFs] = FakePlatform::kMemory;
  machine.registers.rflags = kFlagDirection;
  machine.registers.general[kRdx] = 0x1f0;
  machine.registers.general[kRcx] = 3;
  machine.registers.general[kRsi] = 4;
  for (unsigned i = 0; i < 6; ++i) machine.platform.memory[i] = static_cast<std::uint8_t>(i);
  machine.platform.hypervisor = [](Page& page) { succeed(page, {}); };
  REQUIRE(machine.handle(kExitIoio).outcome == Outcome::kResume);
  const auto* sent = machine.platform.last_request.shared_buffer;
  REQUIRE(std::vector<int>(sent, sent + 6) == std::vector<int>{4, 5, 2, 3, 0, 1});
  REQUIRE(machine.platform.last_request.exit_info_1 == 0x01f0'122c);
  REQUIRE(machine.registers.general[kRsi] == static_cast<std::uint64_t>(-2));
  REQUIRE(machine.registers.rip == FakePlatform::kCode + 4);
}

TEST_CASE("REP with nothing to do does not exit; a bad operand is refused", "[ghcb_guest][ioio]") {
  Machine none({0xf3, 0x6c});
  none.registers.general[kRcx] = 0;
  REQUIRE(none.handle(kExitIoio).outcome == Outcome::kResume);
  REQUIRE(none.platform.exits == 0);
  REQUIRE(none.registers.rip == FakePlatform::kCode + 2);

  Machine bad({0x6e});
  bad.registers.general[kRsi] = FakePlatform::kUnmapped;
  REQUIRE(bad.handle(kExitIoio).outcome == Outcome::kRefused);
  REQUIRE(bad.platform.exits == 0);
}

TEST_CASE("a refused INS leaves memory alone", "[ghcb_guest][ioio]") {
  Machine machine({0x6c});
  machine.registers.general[kRdi] = FakePlatform::kMemory;
  machine.platform.hypervisor = [](Page& page) {
    page.shared_buffer[0] = 0x55;
    answer(page, 2, 3);
  };
  REQUIRE(machine.handle(kExitIoio).outcome == Outcome::kRefused);
  REQUIRE(machine.platform.memory[0] == 0);
}

TEST_CASE("DR7 is cached, its reserved bits never leave", "[ghcb_guest]") {
  Machine machine({0x0f, 0x23, 0xf8, 0x0f, 0x21, 0xfb});  // mov dr7, rax; mov rbx, dr7
  machine.registers.general[kRax] = 0xffffdfff;
  machine.platform.hypervisor = [](Page& page) { succeed(page, {}); };
  REQUIRE(machine.handle(kExitWriteDr7).outcome == Outcome::kResume);
  REQUIRE(machine.platform.last_request.rax == 0xffff07ff);
  REQUIRE(machine.handle(kExitReadDr7).outcome == Outcome::kResume);
  REQUIRE(machine.registers.general[kRbx] == 0xffff07ff);
  REQUIRE(machine.platform.exits == 1);

  Machine wide({0x0f, 0x23, 0xf8});
  wide.registers.general[kRax] = 0x1'00000400;
  REQUIRE(wide.handle(kExitWriteDr7).event.vector == 13);
  REQUIRE(wide.platform.exits == 0);
}

// What of an event goes out and comes back, for those without parameters in the instruction. APM vol. 2 table 15-35 has
// the exit codes, the GHCB specification table 6 the registers.
TEST_CASE("counters ask with RCX at most and take what the event returns", "[ghcb_guest]") {
  struct Case {
    std::vector<std::uint8_t> code;
    std::uint64_t exit;
    bool sends_rcx, takes_rcx;
  };
  const Case cases[] = {
      {{0x0f, 0x31}, 0x6e, false, false},       // rdtsc
      {{0x0f, 0x33}, 0x6f, true, false},        // rdpmc
      {{0x0f, 0x01, 0xf9}, 0x87, false, true},  // rdtscp
  };
  for (const auto& expected : cases) {
    Machine machine(expected.code);
    machine.platform.hypervisor = [](Page& page) {
      page.rax = 0xffffffff'00000001;
      page.rdx = 2;
      page.rcx = 3;
      page.rbx = 4;
      succeed(page, {Field::kRax, Field::kRdx, Field::kRcx, Field::kRbx});
    };
    const Registers before = machine.registers;
    REQUIRE(machine.handle(expected.exit).outcome == Outcome::kResume);
    const Page& request = machine.platform.last_request;
    REQUIRE(request.exit_code == expected.exit);
    REQUIRE(request.valid.has(Field::kRcx) == expected.sends_rcx);
    REQUIRE(request.rcx == (expected.sends_rcx ? before.general[kRcx] & 0xffffffff : 0));
    REQUIRE(request.rax == 0);
    REQUIRE(machine.registers.general[kRax] == 1);
    REQUIRE(machine.registers.general[kRdx] == 2);
    REQUIRE(machine.registers.general[kRcx] == (expected.takes_rcx ? 3 : before.general[kRcx]));
    REQUIRE(machine.registers.general[kRbx] == before.general[kRbx]);
    REQUIRE(machine.registers.rip == FakePlatform::kCode + expected.code.size());

    for (const Field missing : {Field::kRax, Field::kRdx, Field::kRcx}) {
      Machine spoilt(expected.code);
      spoilt.platform.hypervisor = [missing](Page& page) {
        succeed(page, {});
        for (const auto field : {Field::kRax, Field::kRdx, Field::kRcx}) {
          if (field != missing) page.valid.set(field);
        }
      };
      const bool consumed = missing != Field::kRcx || expected.takes_rcx;
      REQUIRE(spoilt.handle(expected.exit).outcome == (consumed ? Outcome::kViolation : Outcome::kResume));
    }
  }
}

TEST_CASE("INVD and WBINVD disclose nothing", "[ghcb_guest]") {
  for (const auto& [opcode, exit] : {std::pair{0x08, 0x76}, std::pair{0x09, 0x89}}) {
    Machine machine({0x0f, static_cast<std::uint8_t>(opcode)});
    const Registers before = machine.registers;
    machine.platform.hypervisor = [](Page& page) { succeed(page, {}); };
    REQUIRE(machine.handle(static_cast<std::uint64_t>(exit)).outcome == Outcome::kResume);
    ValidBitmap expected{};
    for (const auto field : {Field::kExitCode, Field::kExitInfo1, Field::kExitInfo2}) expected.set(field);
    REQUIRE(machine.platform.last_request.valid == expected);
    REQUIRE(std::equal(std::begin(before.general), std::end(before.general), std::begin(machine.registers.general)));
    REQUIRE(machine.registers.rip == FakePlatform::kCode + 2);
  }
}

TEST_CASE("VMMCALL shows RAX and the privilege level", "[ghcb_guest]") {
  Machine machine({0x0f, 0x01, 0xd9});
  const Registers before = machine.registers;
  machine.registers.general[kRax] = 0x1234'5678'9abc'def0;
  machine.platform.hypervisor = [](Page& page) {
    page.rax = 42;
    page.rbx = 43;
    succeed(page, {Field::kRax, Field::kRbx});
  };
  REQUIRE(machine.handle(kExitVmmcall).outcome == Outcome::kResume);
  REQUIRE(machine.platform.last_request.rax == 0x1234'5678'9abc'def0);
  REQUIRE(machine.platform.last_request.valid.has(Field::kCpl));
  REQUIRE(machine.platform.last_request.rbx == 0);
  REQUIRE(machine.registers.general[kRax] == 42);
  REQUIRE(machine.registers.general[kRbx] == before.general[kRbx]);

  Machine silent({0x0f, 0x01, 0xd9});
  silent.platform.hypervisor = [](Page& page) { succeed(page, {}); };
  REQUIRE(silent.handle(kExitVmmcall).outcome == Outcome::kViolation);
}

TEST_CASE("MONITOR, MONITORX, MWAIT and MWAITX are stepped over", "[ghcb_guest]") {
  struct Case {
    std::uint8_t modrm;
    std::uint64_t exit;
  };
  for (const Case& expected : {Case{0xc8, 0x8a}, Case{0xfa, 0x8a}, Case{0xc9, 0x8b}, Case{0xfb, 0x8b}}) {
    Machine machine({0x0f, 0x01, expected.modrm});
    REQUIRE(machine.handle(expected.exit).outcome == Outcome::kResume);
    REQUIRE(machine.platform.exits == 0);
    REQUIRE(machine.registers.rip == FakePlatform::kCode + 3);
    // And not as one another.
    Machine foreign({0x0f, 0x01, expected.modrm});
    REQUIRE(foreign.handle(expected.exit ^ 1).outcome == Outcome::kRefused);
  }
}

TEST_CASE("string I/O of each size and direction", "[ghcb_guest][ioio]") {
  struct Case {
    std::vector<std::uint8_t> code;
    std::uint64_t info;
    unsigned size;
    bool in;
  };
  // Bits of EXITINFO1: APM vol. 2 figure 15-2.
  const Case cases[] = {
      {{0x6c}, 0x03f8'0215, 1, true},        {{0x66, 0x6d}, 0x03f8'0225, 2, true},  {{0x6d}, 0x03f8'0245, 4, true},
      {{0x6e}, 0x03f8'0e14, 1, false},       {{0x66, 0x6f}, 0x03f8'0e24, 2, false}, {{0x6f}, 0x03f8'0e44, 4, false},
      {{0x67, 0x6f}, 0x03f8'0d44, 4, false},
  };
  for (const auto& expected : cases) {
    Machine machine(expected.code);
    machine.registers.general[kRdx] = 0x3f8;
    machine.registers.general[kRsi] = machine.registers.general[kRdi] = FakePlatform::kMemory;
    for (unsigned i = 0; i < 4; ++i) machine.platform.memory[i] = static_cast<std::uint8_t>(0x10 + i);
    machine.platform.hypervisor = [&](Page& page) {
      for (unsigned i = 0; i < 4 && expected.in; ++i) page.shared_buffer[i] = static_cast<std::uint8_t>(0x20 + i);
      succeed(page, {});
    };
    REQUIRE(machine.handle(kExitIoio).outcome == Outcome::kResume);
    const Page& request = machine.platform.last_request;
    CHECK((request.exit_info_1 & ~std::uint64_t{0x1c00}) ==
          (expected.info & ~std::uint64_t{0x1c00}));  // but the segment
    CHECK(request.exit_info_2 == 1);
    for (unsigned i = 0; i < 4; ++i) {
      if (expected.in) {
        CHECK(machine.platform.memory[i] == (i < expected.size ? 0x20 + i : 0x10 + i));
      } else {
        CHECK(request.shared_buffer[i] == (i < expected.size ? 0x10 + i : 0));
      }
    }
    const unsigned index = expected.in ? kRdi : kRsi;
    CHECK(machine.registers.general[index] == FakePlatform::kMemory + expected.size);
  }
}

TEST_CASE("other events are reported as unsupported", "[ghcb_guest]") {
  // CR access, DR0, INVLPG, VMRUN, MWAIT_CONDITIONAL, XSETBV, RDPRU, and one that does not exist.
  for (const std::uint64_t code : {0x00, 0x10, 0x20, 0x79, 0x80, 0x8c, 0x8d, 0x8e, 0xbeef}) {
    Machine machine({0x0f, 0xa2});
    const Registers before = machine.registers;
    machine.platform.hypervisor = [](Page& page) { succeed(page, {}); };
    REQUIRE(machine.handle(code).outcome == Outcome::kRefused);
    REQUIRE(machine.platform.last_request.exit_code == 0x8000ffff);
    REQUIRE(machine.platform.last_request.exit_info_1 == code);
    REQUIRE(machine.platform.last_request.exit_info_2 == 0);
    machine.require_untouched(before);

    machine.platform.hypervisor = [](Page& page) { answer(page, 1, 0x80000306); };
    const VcResult raised = machine.handle(code);
    REQUIRE(raised.outcome == Outcome::kException);
    REQUIRE(raised.event.vector == 6);
    machine.platform.hypervisor = [](Page& page) { answer(page, 1, 0x8000030e); };
    REQUIRE(machine.handle(code).outcome == Outcome::kViolation);
  }
}
}  // namespace
