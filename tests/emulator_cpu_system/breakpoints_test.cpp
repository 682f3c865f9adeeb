// Debug registers (APM vol. 2, 13.1). Only a guest whose debug registers are swapped (SEV_FEATURES[5], 15.34.11) can
// set DR7 and gets #DB itself.
#include <catch2/catch.hpp>

#include "machine.hpp"

using namespace sevisor;
using namespace sevisor::emulator;
using namespace sevisor::emulator::test;

namespace {

constexpr std::uint64_t kDebugSwap = 1U << 5;
constexpr std::uint64_t kResumeFlag = 1U << 16;
constexpr std::uint64_t kTrapFlag = 1U << 8;

// DR7 with breakpoint `n` on `kind` (0 instructions, 1 writes, 3 reads and writes) and LEN `len` (0 1, 1 2, 3 4, 2 8
// bytes).
constexpr std::uint64_t armed(unsigned n, std::uint64_t kind, std::uint64_t len) {
  return 0x400 | std::uint64_t{2} << 2 * n | kind << (16 + 4 * n) | len << (18 + 4 * n);
}

struct DebugMachine : Machine {
  void enter_debugged(std::uint64_t dr7, std::uint64_t address, unsigned number = 0, unsigned cpl = 0,
                      Mode which = Mode::kLong64) {
    enter(which, cpl);
    vmsa.sev_features = kDebugSwap;
    vmsa.dr7 = dr7;
    vmsa.dr[number] = address;
  }
};

}  // namespace

TEST_CASE_METHOD(DebugMachine, "DR7 is the guest's own when the debug registers are swapped, and else intercepted") {
  const Bytes write_and_read = {0x0f, 0x23, 0xf8, 0x0f, 0x21, 0xfb};  // mov dr7, rax; mov rbx, dr7
  enter_debugged(0x400, 0);
  vmsa.rax = 0xffff'ffff;
  code(write_and_read);
  REQUIRE(run().code == ghcb::kExitVmgexit);
  // GD is on, and so the read raises #DB: 13.1.1.4.
  CHECK(vector() == kVectorDb);
  CHECK((vmsa.dr6 & 1 << 13) != 0);
  CHECK(stacked(0) == kCode + 3);
  CHECK(vmsa.dr7 == 0xffff'07ff);  // what cannot be written reads 0, bit 10 reads 1, and #DB has cleared GD

  enter(Mode::kLong64);
  vmsa.rax = 0x400;
  code(write_and_read);
  REQUIRE(run().code == ghcb::kExitVmgexit);
  CHECK(vector() == kVectorVc);
  CHECK(stacked(0) == ghcb::kExitWriteDr7);
}

TEST_CASE_METHOD(DebugMachine, "a breakpoint on data traps after the access") {  // 13.1.3
  struct Case {
    const char* what;
    std::uint64_t kind, len, address;
    Bytes access;
    bool hits;
  };
  const Bytes store4 = {0x89, 0x0b};         // mov [rbx], ecx
  const Bytes load4 = {0x8b, 0x0b};          // mov ecx, [rbx]
  const Bytes add4 = {0x01, 0x0b};           // add [rbx], ecx
  const Bytes store16 = {0x0f, 0x11, 0x03};  // movups [rbx], xmm0
  for (const Case& c :
       {Case{"write", 1, 3, kData, store4, true}, Case{"read, on writes only", 1, 3, kData, load4, false},
        Case{"read", 3, 3, kData, load4, true}, Case{"read-modify-write", 1, 3, kData, add4, true},
        Case{"last byte", 1, 0, kData + 3, store4, true}, Case{"behind", 1, 0, kData + 4, store4, false},
        Case{"before", 1, 3, kData - 4, store4, false}, Case{"eight bytes", 1, 2, kData - 4, store4, false},
        Case{"eight bytes, aligned", 1, 2, kData + 4, store4, true}, Case{"vector", 1, 0, kData + 15, store16, true}}) {
    INFO(c.what);
    enter_debugged(armed(2, c.kind, c.len), c.address, 2);
    vmsa.cr4 |= kCr4Osfxsr;
    vmsa.rbx = kData;
    Bytes all = c.access;
    all.push_back(0x90);
    code(all);
    REQUIRE(run().code == ghcb::kExitVmgexit);
    CHECK(vector() == (c.hits ? kVectorDb : -1));
    if (!c.hits) continue;
    CHECK((vmsa.dr6 & 0xf) == 4);
    CHECK(stacked(0) == kCode + c.access.size());
    CHECK((stacked(2) & kResumeFlag) == 0);
  }
}

TEST_CASE_METHOD(DebugMachine, "a string instruction traps after the element that was hit") {
  enter_debugged(armed(0, 1, 0), kData + 5);
  vmsa.rdi = kData;
  vmsa.rcx = 0x10;
  vmsa.rax = 0xaa;
  code({0xf3, 0xaa});  // rep stosb
  REQUIRE(run().code == ghcb::kExitVmgexit);
  CHECK(vector() == kVectorDb);
  CHECK(vmsa.rcx == 10);
  CHECK(vmsa.rdi == kData + 6);
  CHECK(stacked(0) == kCode);
  REQUIRE(run().code == ghcb::kExitVmgexit);  // IRET, and the rest
  CHECK(vector() == -1);
  CHECK(vmsa.rcx == 0);
}

TEST_CASE_METHOD(DebugMachine, "a breakpoint on an instruction faults before it, once") {  // 13.1.3.1
  for (const Mode which : {Mode::kLong64, Mode::kProtected32}) {
    enter_debugged(armed(1, 0, 0), kCode + 2, 1, 0, which);
    vmsa.rcx = 0;
    code({0xff, 0xc1, 0xff, 0xc1, 0xff, 0xc1});  // inc ecx, three times
    REQUIRE(run().code == ghcb::kExitVmgexit);
    CHECK(vector() == kVectorDb);
    CHECK((vmsa.dr6 & 0xf) == 2);
    CHECK(vmsa.rcx == 1);
    CHECK(stacked(0) == kCode + 2);
    CHECK((stacked(2) & kResumeFlag) != 0);
    REQUIRE(run().code == ghcb::kExitVmgexit);  // IRET with RF
    CHECK(vector() == -1);
    CHECK(vmsa.rcx == 3);
  }
}

TEST_CASE_METHOD(DebugMachine, "user code is watched too, and a breakpoint that is off is not") {
  enter_debugged(armed(0, 1, 3), kData, 0, 3);
  vmsa.rbx = kData;
  code({0x89, 0x0b, 0x90});
  REQUIRE(run().code == ghcb::kExitVmgexit);
  CHECK(vector() == kVectorDb);
  CHECK(stacked(0) == kCode + 2);

  enter_debugged(armed(0, 1, 3) & ~std::uint64_t{3}, kData);
  vmsa.rbx = kData;
  code({0x89, 0x0b, 0x90});
  REQUIRE(run().code == ghcb::kExitVmgexit);
  CHECK(vector() == -1);
}

TEST_CASE_METHOD(DebugMachine, "MOV SS holds a breakpoint on data back for one instruction") {  // 8.1.3
  enter_debugged(armed(0, 3, 1), kData);
  put(kData, kData0);
  vmsa.rbx = kData;
  code({0x8e, 0x13, 0x90, 0x90});  // mov ss, [rbx]
  REQUIRE(run().code == ghcb::kExitVmgexit);
  CHECK(vector() == kVectorDb);
  CHECK(stacked(0) == kCode + 3);
}

// As kvm-unit-tests' emulator.c has it of AMD's processors.
TEST_CASE_METHOD(DebugMachine, "MOV SS does not hold a breakpoint on the next instruction back") {
  enter_debugged(armed(0, 0, 0), kCode + 2);
  vmsa.rax = kData0;
  code({0x8e, 0xd0, 0x90, 0x90});  // mov ss, eax
  REQUIRE(run().code == ghcb::kExitVmgexit);
  CHECK(vector() == kVectorDb);
  CHECK(stacked(0) == kCode + 2);
}

TEST_CASE_METHOD(DebugMachine, "SYSCALL that masks TF is not stepped, SYSRET that sets it traps at once") {  // 13.1.4
  constexpr std::uint64_t kTarget = kCode + 0x100;
  enter_debugged(0x400, 0, 0, 3);
  vmsa.star = std::uint64_t{kUserCode32} << 48 | std::uint64_t{kCode64} << 32;
  vmsa.lstar = kTarget;
  vmsa.sfmask = kTrapFlag;
  vmsa.rflags |= kTrapFlag;
  code({0x0f, 0x05, 0x90});                       // syscall
  poke(kTarget, {0x90, 0x90, 0x48, 0x0f, 0x07});  // nop; nop; sysretq
  REQUIRE(run().code == ghcb::kExitVmgexit);
  CHECK(vector() == kVectorDb);
  CHECK(stacked(0) == kCode + 2);
  CHECK((vmsa.dr6 & 1 << 14) != 0);
}
