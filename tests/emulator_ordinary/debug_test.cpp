// A debugger in user space: KVM_SET_GUEST_DEBUG. Linux arch/x86/kvm/x86.c kvm_arch_vcpu_ioctl_set_guest_debug(),
// kvm_vcpu_do_singlestep(); svm/svm.c db_interception(), bp_interception().
#include "tests/emulator_ordinary/guest.hpp"

using namespace sevisor;
using namespace sevisor::test;

namespace {
constexpr std::uint64_t kActiveLow = 0xffff0ff0;
constexpr std::uint64_t kStep = 1 << 14;
}  // namespace

TEST_CASE_METHOD(Guest, "each instruction is a step, those that exit too", "[native]") {
  kvm_guest_debug debug{};
  debug.control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP;
  REQUIRE(set(KVM_SET_GUEST_DEBUG, debug) == 0);
  code({0x90, 0x40, 0xe6, 0x80, 0x0f, 0xa2, 0x90, 0xf4});  // nop; inc eax; out 0x80, al; cpuid; nop; hlt
  for (const std::uint64_t next : {1, 2}) {
    REQUIRE(run() == KVM_EXIT_DEBUG);
    CHECK(run_area->debug.arch.exception == 1);
    CHECK(run_area->debug.arch.pc == kCode + next);
    CHECK(run_area->debug.arch.dr6 == (kActiveLow | kStep));
  }
  expect_port(false, 1, 0x80);
  for (const std::uint64_t next : {4, 6, 7}) {
    REQUIRE(run() == KVM_EXIT_DEBUG);
    CHECK(run_area->debug.arch.pc == kCode + next);
  }
  CHECK((regs().rflags & 0x100) == 0);
  REQUIRE(set(KVM_SET_GUEST_DEBUG, kvm_guest_debug{}) == 0);
  REQUIRE(run() == KVM_EXIT_HLT);
}

TEST_CASE_METHOD(Guest, "INT3 and breakpoints are the debugger's while it wants them", "[native]") {
  kvm_guest_debug debug{};
  debug.control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_SW_BP | KVM_GUESTDBG_USE_HW_BP;
  debug.arch.debugreg[1] = kCode + 2;
  debug.arch.debugreg[2] = kData;
  debug.arch.debugreg[7] = 0x400 | 1 << 2 | 1 << 4 | 0xd << 24;  // L1: instruction; L2: writes of four bytes
  REQUIRE(set(KVM_SET_GUEST_DEBUG, debug) == 0);
  code({0x90, 0x90, 0x40, 0xa3, 0, 0, 1, 0, 0xcc, 0xf4});  // nop; nop; inc eax; mov [kData], eax; int3; hlt
  REQUIRE(run() == KVM_EXIT_DEBUG);
  CHECK(run_area->debug.arch.exception == 1);
  CHECK(run_area->debug.arch.pc == kCode + 2);
  CHECK((run_area->debug.arch.dr6 & 0xf) == 2);
  debug.arch.debugreg[7] = 0x400 | 1 << 4 | 0xd << 24;
  REQUIRE(set(KVM_SET_GUEST_DEBUG, debug) == 0);
  REQUIRE(run() == KVM_EXIT_DEBUG);
  CHECK(run_area->debug.arch.pc == kCode + 8);
  CHECK((run_area->debug.arch.dr6 & 0xf) == 4);
  CHECK(load<std::uint32_t>(ram.data() + kData) == 1);
  REQUIRE(run() == KVM_EXIT_DEBUG);
  CHECK(run_area->debug.arch.exception == 3);
  CHECK(run_area->debug.arch.pc == kCode + 8);
  CHECK(get<kvm_debugregs>(KVM_GET_DEBUGREGS).dr6 == kActiveLow);  // the guest's own are untouched
  REQUIRE(set(KVM_SET_GUEST_DEBUG, kvm_guest_debug{}) == 0);
  REQUIRE(run() == KVM_EXIT_SHUTDOWN);  // there is no handler
}
