// An ordinary vCPU's state through its ioctls, before and after it has run. Expected: Linux arch/x86/kvm/x86.c, and
// what this machine's KVM answers (SEVISOR_TEST_HOST=kernel).
#include <array>

#include "tests/emulator_ordinary/guest.hpp"

using namespace sevisor;
using namespace sevisor::test;

namespace {

struct MsrCall {
  kvm_msrs header{};
  kvm_msr_entry entry{};
};

int set_msr(Guest& guest, std::uint32_t index, std::uint64_t value) {
  MsrCall call{};
  call.header.nmsrs = 1;
  call.entry = {.index = index, .reserved = 0, .data = value};
  return guest.call(guest.vcpu, KVM_SET_MSRS, &call);
}
std::uint64_t get_msr(Guest& guest, std::uint32_t index) {
  MsrCall call{};
  call.header.nmsrs = 1;
  call.entry.index = index;
  REQUIRE(guest.call(guest.vcpu, KVM_GET_MSRS, &call) == 1);
  return call.entry.data;
}

constexpr std::uint32_t kKept[] = {0x174,      0x175,      0x176,      0xc0000081, 0xc0000082,
                                   0xc0000083, 0xc0000084, 0xc0000100, 0xc0000101, 0xc0000102};

}  // namespace

TEST_CASE_METHOD(Guest, "general registers and flags go to the guest and come back") {
  set_regs([](kvm_regs& r) {
    r.rax = 1;
    r.rsi = 0x1234;
    r.rflags = 0x2 | 0x400;  // DF
  });
  code({0x01, 0xf0, 0xf4});  // add eax, esi
  REQUIRE(run() == KVM_EXIT_HLT);
  const kvm_regs after = regs();
  CHECK(after.rax == 0x1235);
  CHECK((after.rflags & 0x400) != 0);
  CHECK(after.rip == kCode + 3);
  set_regs([](kvm_regs& r) {
    r.rip = kCode;
    r.rax = 10;
  });
  REQUIRE(run() == KVM_EXIT_HLT);
  CHECK(regs().rax == 0x123e);
}

TEST_CASE_METHOD(Guest, "segments and control registers that the guest loads are seen") {
  // A GDT at kData whose second entry is 16 MiB of data at 0x12340000.
  store(ram.data() + kData + 8, std::uint64_t{0x1240'9334'0000'0fff} | std::uint64_t{0x0080'0000'0000'0000});
  store(ram.data() + kData + 0x100, std::uint16_t{15});
  store(ram.data() + kData + 0x102, static_cast<std::uint32_t>(kData));
  code({0x0f, 0x01, 0x15, 0,    1,    1,    0,           // lgdt [kData + 0x100]
        0xb8, 8,    0,    0,    0,    0x8e, 0xe0,        // mov eax, 8; mov fs, eax
        0x0f, 0x20, 0xc0, 0x83, 0xc8, 2,                 // mov eax, cr0; or eax, 2 (MP)
        0x0f, 0x22, 0xc0,                                // mov cr0, eax
        0xb8, 0,    0,    3,    0,    0x0f, 0x22, 0xd8,  // mov eax, 0x30000; mov cr3, eax
        0xf4});
  REQUIRE(run() == KVM_EXIT_HLT);
  const auto sregs = get<kvm_sregs>(KVM_GET_SREGS);
  CHECK(sregs.gdt.base == kData);
  CHECK(sregs.gdt.limit == 15);
  CHECK(sregs.fs.selector == 8);
  CHECK(sregs.fs.base == 0x12340000);
  CHECK(sregs.fs.limit == 0xffffff);
  CHECK(sregs.fs.g == 1);
  CHECK((sregs.cr0 & 3) == 3);
  CHECK(sregs.cr3 == 0x30000);
}

TEST_CASE_METHOD(Guest, "MSRs are kept across runs") {
  for (const std::uint32_t index : kKept) REQUIRE(set_msr(*this, index, 0x1000 + (index & 0xff)) == 1);
  REQUIRE(set_msr(*this, 0x277, 0x0606060606060606) == 1);
  if (!on_kernel()) CHECK(set_msr(*this, 0x277, 2) == 0);  // a reserved type
  CHECK(set_msr(*this, 0xc0000082, 1ull << 60) == 0);      // not canonical
  code({0xb9, 0x74, 1, 0, 0, 0x0f, 0x32, 0xf4});           // rdmsr SYSENTER_CS
  REQUIRE(run() == KVM_EXIT_HLT);
  CHECK(regs().rax == 0x1074);
  for (const std::uint32_t index : kKept) CHECK(get_msr(*this, index) == 0x1000 + (index & 0xff));
  CHECK(get_msr(*this, 0x277) == 0x0606060606060606);
}

TEST_CASE_METHOD(Guest, "FPU, XSAVE and debug registers are kept across runs") {
  kvm_fpu fpu{};
  fpu.fcw = 0x27f;
  fpu.fpr[0][0] = 0x42;
  fpu.ftwx = 1;
  fpu.xmm[3][5] = 0x99;
  REQUIRE(set(KVM_SET_FPU, fpu) == 0);
  auto debug = get<kvm_debugregs>(KVM_GET_DEBUGREGS);
  CHECK(debug.dr6 == 0xffff0ff0);
  CHECK(debug.dr7 == 0x400);
  debug.db[2] = 0x123456;
  REQUIRE(set(KVM_SET_DEBUGREGS, debug) == 0);
  code({0x90, 0xf4});
  REQUIRE(run() == KVM_EXIT_HLT);
  const auto after = get<kvm_fpu>(KVM_GET_FPU);
  CHECK(after.fcw == 0x27f);
  CHECK(after.fpr[0][0] == 0x42);
  CHECK(after.xmm[3][5] == 0x99);
  CHECK(get<kvm_debugregs>(KVM_GET_DEBUGREGS).db[2] == 0x123456);
  if (on_kernel()) return;  // there KVM_SET_FPU leaves XSTATE_BV, which then names nothing
  const auto xsave = get<kvm_xsave>(KVM_GET_XSAVE);
  CHECK((xsave.region[0] & 0xffff) == 0x27f);
  CHECK(reinterpret_cast<const unsigned char*>(xsave.region)[160 + 3 * 16 + 5] == 0x99);
}

TEST_CASE_METHOD(Guest, "immediate_exit leaves before the guest, with the last access completed") {
  code({0xe4, 0x71, 0xf4});
  expect_port(true, 1, 0x71);
  store(port_data(), std::uint8_t{0x5c});
  run_area->immediate_exit = 1;
  CHECK(call(vcpu, KVM_RUN) == -EINTR);
  CHECK((regs().rax & 0xff) == 0x5c);
  CHECK(regs().rip == kCode + 2);
  run_area->immediate_exit = 0;
  REQUIRE(run() == KVM_EXIT_HLT);
}

TEST_CASE_METHOD(Guest, "registers are handed over in kvm_run") {
  REQUIRE(call(kvm_fd, KVM_CHECK_EXTENSION, static_cast<unsigned long>(KVM_CAP_SYNC_REGS)) == 7);
  code({0x40, 0xf4});  // inc eax
  run_area->kvm_valid_regs = 8;
  CHECK(call(vcpu, KVM_RUN) == -EINVAL);
  run_area->kvm_valid_regs = 0;
  run_area->kvm_dirty_regs = 8;
  CHECK(call(vcpu, KVM_RUN) == -EINVAL);
  run_area->kvm_dirty_regs = 0;
  run_area->kvm_valid_regs = KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS | KVM_SYNC_X86_EVENTS;
  REQUIRE(run() == KVM_EXIT_HLT);
  CHECK(run_area->s.regs.regs.rax == 1);
  CHECK(run_area->s.regs.regs.rip == kCode + 2);
  CHECK(run_area->s.regs.sregs.cs.selector == 8);
  run_area->s.regs.regs.rax = 0x41;
  run_area->s.regs.regs.rip = kCode;
  run_area->kvm_dirty_regs = KVM_SYNC_X86_REGS;
  REQUIRE(run() == KVM_EXIT_HLT);
  CHECK(run_area->kvm_dirty_regs == 0);
  CHECK(run_area->s.regs.regs.rax == 0x42);
}

TEST_CASE_METHOD(Guest, "KVM_GET_SREGS2 shows what KVM_GET_SREGS does") {
  const auto old_form = get<kvm_sregs>(KVM_GET_SREGS);
  auto sregs = get<kvm_sregs2>(KVM_GET_SREGS2);
  CHECK(std::memcmp(&sregs.cs, &old_form.cs, sizeof sregs.cs) == 0);
  CHECK(sregs.cr0 == old_form.cr0);
  CHECK(sregs.flags == 0);
  sregs.gs.base = 0x7777;
  REQUIRE(set(KVM_SET_SREGS2, sregs) == 0);
  CHECK(get<kvm_sregs>(KVM_GET_SREGS).gs.base == 0x7777);
  sregs.flags = 2;
  CHECK(set(KVM_SET_SREGS2, sregs) == -EINVAL);
}
