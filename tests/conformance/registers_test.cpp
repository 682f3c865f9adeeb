// What a vCPU begins with, and the calls that read and set it. Linux arch/x86/kvm/x86.c.
#include <algorithm>
#include <array>
#include <cstring>

#include "base/bytes.hpp"
#include "guests.hpp"

using namespace sevisor;
using namespace sevisor::conformance;

namespace {

struct OneMsr {
  kvm_msrs header{.nmsrs = 1, .pad = 0, .entries = {}};
  kvm_msr_entry entry{};
};

int get_msr(const Rig& rig, std::uint32_t index, std::uint64_t& value) {
  OneMsr one;
  one.entry.index = index;
  const int result = answer(rig.of_vcpu(), KVM_GET_MSRS, &one);
  value = one.entry.data;
  return result;
}
int set_msr(const Rig& rig, std::uint32_t index, std::uint64_t value) {
  OneMsr one;
  one.entry.index = index;
  one.entry.data = value;
  return answer(rig.of_vcpu(), KVM_SET_MSRS, &one);
}

void note_segment(const std::string& name, const kvm_segment& s) {
  note(name + " base", s.base);
  note(name + " limit", s.limit);
  note(name + " selector", s.selector);
  // Not the attributes: kvm_intel has them as accessed and busy after reset, kvm_amd has not.
  CHECK(s.present == 1);
}

}  // namespace

TEST_CASE("a new vCPU is in the state after reset") {
  Rig rig(Rig::Chips::kInKernel);
  rig.add_vcpu();
  const kvm_regs regs = rig.regs();
  CHECK(regs.rip == 0xfff0);
  CHECK(regs.rflags == 2);
  const kvm_sregs sregs = rig.vcpus[0].sregs();
  CHECK(sregs.cs.base == 0xffff0000);
  CHECK(sregs.cs.selector == 0xf000);
  CHECK(sregs.cr0 == 0x60000010);
  CHECK((sregs.apic_base & 0xfff) == 0x900);
  note_segment("CS", sregs.cs);
  note_segment("DS", sregs.ds);
  note_segment("SS", sregs.ss);
  note_segment("TR", sregs.tr);
  note_segment("LDT", sregs.ldt);
  note("GDT limit", sregs.gdt.limit);
  note("IDT limit", sregs.idt.limit);
  note("CR4", sregs.cr4);
  note("EFER", sregs.efer);
  note("CR8", sregs.cr8);
  note("APIC base", sregs.apic_base);
  kvm_debugregs debug{};
  CHECK(answer(rig.of_vcpu(), KVM_GET_DEBUGREGS, &debug) == 0);
  CHECK(debug.dr6 == 0xffff0ff0);
  CHECK(debug.dr7 == 0x400);
  kvm_xcrs xcrs{};
  CHECK(answer(rig.of_vcpu(), KVM_GET_XCRS, &xcrs) == 0);
  CHECK(xcrs.nr_xcrs == 1);
  CHECK(xcrs.xcrs[0].value == 1);
  kvm_fpu fpu{};
  CHECK(answer(rig.of_vcpu(), KVM_GET_FPU, &fpu) == 0);
  CHECK(fpu.fcw == 0x37f);
  std::uint64_t pat = 0;
  CHECK(get_msr(rig, 0x277, pat) == 1);
  CHECK(pat == 0x0007040600070406);
  // RDX holds the processor's signature after reset: of the CPUID table, which was not there yet.
  note("RDX", regs.rdx);
  kvm_lapic_state lapic{};
  CHECK(answer(rig.of_vcpu(), KVM_GET_LAPIC, &lapic) == 0);
  for (const unsigned at :
       {0x20U, 0x80U, 0xd0U, 0xe0U, 0xf0U, 0x320U, 0x330U, 0x350U, 0x360U, 0x370U, 0x380U, 0x3e0U}) {
    note("LAPIC " + std::to_string(at), load<std::uint32_t>(reinterpret_cast<const std::byte*>(lapic.regs) + at));
  }
}

TEST_CASE("registers come back as they were set") {
  Rig rig;
  rig.load(hlt_guest());
  kvm_regs set{};
  std::uint64_t value = 0x0101010101010101;
  for (__u64* each : {&set.rax, &set.rbx, &set.rcx, &set.rdx, &set.rsi, &set.rdi, &set.rsp, &set.rbp, &set.r8, &set.r9,
                      &set.r10, &set.r11, &set.r12, &set.r13, &set.r14, &set.r15}) {
    *each = value;
    value += 0x0101010101010101;
  }
  set.rip = 0x1000;
  set.rflags = 0x202;
  rig.set_regs(set);
  const kvm_regs got = rig.regs();
  CHECK(std::memcmp(&set, &got, sizeof set) == 0);
}

TEST_CASE("segments and control registers come back, and impossible ones are refused") {
  Rig rig(Rig::Chips::kInKernel);
  rig.load_long_mode(hlt_guest());
  const kvm_sregs now = rig.vcpus[0].sregs();
  CHECK(now.cr3 == 0x80000);
  CHECK(now.efer == 0x500);
  CHECK(now.cs.l == 1);
  const auto refused = [&](auto&& change) {
    kvm_sregs wrong = now;
    change(wrong);
    return answer(rig.of_vcpu(), KVM_SET_SREGS, &wrong);
  };
  CHECK(refused([](kvm_sregs& s) { s.cr4 &= ~std::uint64_t{0x20}; }) == -EINVAL);  // long mode without PAE
  CHECK(refused([](kvm_sregs& s) { s.cr4 |= std::uint64_t{1} << 40; }) == -EINVAL);
  CHECK(refused([](kvm_sregs& s) { s.cr0 |= std::uint64_t{1} << 32; }) == -EINVAL);
  CHECK(refused([](kvm_sregs& s) { s.efer &= ~std::uint64_t{0x400}; }) == -EINVAL);      // paging, LME, but not LMA
  CHECK(refused([](kvm_sregs& s) { s.cr0 &= ~std::uint64_t{0x80000000}; }) == -EINVAL);  // 64-bit code without paging
  CHECK(refused([](kvm_sregs& s) { s.cr3 |= std::uint64_t{1} << 60; }) == -EINVAL);
  CHECK(refused([](kvm_sregs& s) { s.apic_base |= 1; }) == -EINVAL);
  CHECK(refused([](kvm_sregs&) {}) == 0);
}

TEST_CASE("KVM_GET_SREGS2 and KVM_SET_SREGS2") {
  Rig rig;
  rig.load_long_mode(hlt_guest());
  kvm_sregs2 sregs{};
  REQUIRE(answer(rig.of_vcpu(), KVM_GET_SREGS2, &sregs) == 0);
  CHECK(sregs.flags == 0);  // no PDPTRs in long mode
  CHECK(sregs.cr3 == 0x80000);
  CHECK(answer(rig.of_vcpu(), KVM_SET_SREGS2, &sregs) == 0);
  sregs.flags = 2;
  CHECK(answer(rig.of_vcpu(), KVM_SET_SREGS2, &sregs) == -EINVAL);
  sregs.flags = KVM_SREGS2_FLAGS_PDPTRS_VALID;  // not with long mode
  CHECK(answer(rig.of_vcpu(), KVM_SET_SREGS2, &sregs) == -EINVAL);
}

TEST_CASE("x87 and SSE state, by both calls") {
  Rig rig;
  rig.add_vcpu();
  // KVM_SET_FPU alone leaves XSTATE_BV, and what it sets would count as not in use.
  kvm_xsave area{};
  auto* bytes = reinterpret_cast<std::byte*>(&area);
  store(bytes, std::uint16_t{0x37f});
  store(bytes + 24, std::uint32_t{0x1fa0});  // MXCSR
  store(bytes + 512, std::uint64_t{3});      // XSTATE_BV
  REQUIRE(answer(rig.of_vcpu(), KVM_SET_XSAVE, &area) == 0);
  kvm_fpu set{};
  set.fcw = 0x27f;
  set.fsw = 0x3800;
  set.ftwx = 0x81;
  for (unsigned i = 0; i < 16; ++i) std::memset(set.xmm[i], static_cast<int>(0x10 + i), 16);
  for (unsigned i = 0; i < 8; ++i) std::memset(set.fpr[i], static_cast<int>(0x30 + i), 10);
  REQUIRE(answer(rig.of_vcpu(), KVM_SET_FPU, &set) == 0);
  kvm_fpu got{};
  got.mxcsr = 77;
  REQUIRE(answer(rig.of_vcpu(), KVM_GET_FPU, &got) == 0);
  CHECK(std::memcmp(set.xmm, got.xmm, sizeof set.xmm) == 0);
  for (unsigned i = 0; i < 8; ++i) CHECK(std::memcmp(set.fpr[i], got.fpr[i], 10) == 0);
  CHECK(got.fcw == set.fcw);
  CHECK(got.fsw == set.fsw);
  CHECK(got.ftwx == set.ftwx);
  CHECK(got.mxcsr == 0);  // KVM has never filled it in, nor taken it
  REQUIRE(answer(rig.of_vcpu(), KVM_GET_XSAVE, &area) == 0);
  CHECK(load<std::uint16_t>(bytes) == 0x27f);
  CHECK(load<std::uint32_t>(bytes + 24) == 0x1fa0);
  CHECK(bytes[160] == std::byte{0x10});  // XMM0
  CHECK((load<std::uint64_t>(bytes + 512) & 3) == 3);
  CHECK(answer(rig.of_vcpu(), KVM_SET_XSAVE, &area) == 0);
  store(bytes + 512, std::uint64_t{1} << 62 | 3);  // a component that does not exist
  CHECK(answer(rig.of_vcpu(), KVM_SET_XSAVE, &area) == -EINVAL);
}

TEST_CASE("XCR0 and the debug registers") {
  Rig rig;
  rig.add_vcpu();
  kvm_xcrs xcrs{};
  xcrs.nr_xcrs = 1;
  xcrs.xcrs[0].value = 3;
  CHECK(answer(rig.of_vcpu(), KVM_SET_XCRS, &xcrs) == 0);
  xcrs.xcrs[0].value = 2;  // without x87
  CHECK(answer(rig.of_vcpu(), KVM_SET_XCRS, &xcrs) == -EINVAL);
  xcrs.flags = 1;
  xcrs.xcrs[0].value = 3;
  CHECK(answer(rig.of_vcpu(), KVM_SET_XCRS, &xcrs) == -EINVAL);
  kvm_debugregs debug{};
  debug.db[0] = 0x1234;
  debug.dr6 = 0xffff0ff1;
  debug.dr7 = 0x403;
  CHECK(answer(rig.of_vcpu(), KVM_SET_DEBUGREGS, &debug) == 0);
  kvm_debugregs got{};
  CHECK(answer(rig.of_vcpu(), KVM_GET_DEBUGREGS, &got) == 0);
  CHECK(got.db[0] == 0x1234);
  CHECK(got.dr7 == 0x403);
  debug.dr7 = std::uint64_t{1} << 40;
  CHECK(answer(rig.of_vcpu(), KVM_SET_DEBUGREGS, &debug) == -EINVAL);
  debug.dr7 = 0x400;
  debug.flags = 1;
  CHECK(answer(rig.of_vcpu(), KVM_SET_DEBUGREGS, &debug) == -EINVAL);
}

TEST_CASE("MSRs, one by one and until the first that is none") {
  Rig rig(Rig::Chips::kInKernel);
  rig.add_vcpu();
  const std::array<std::pair<std::uint32_t, std::uint64_t>, 8> kept = {
      {{0xc0000081, 0x0023001000000000},  // STAR
       {0xc0000082, 0xffffffff81000000},  // LSTAR
       {0xc0000084, 0x47700},             // SFMASK
       {0xc0000102, 0xffff888000000000},  // KERNEL_GS_BASE
       {0x174, 0x10},                     // SYSENTER_CS
       {0x277, 0x0606060606060606},       // PAT
       {0x2ff, 0xc00},                    // MTRR_DEF_TYPE
       {0xc0000103, 5}}};                 // TSC_AUX
  for (const auto& [index, value] : kept) {
    INFO("MSR " << std::hex << index);
    CHECK(set_msr(rig, index, value) == 1);
    std::uint64_t got = 0;
    CHECK(get_msr(rig, index, got) == 1);
    CHECK(got == value);
  }
  std::uint64_t none = 0;
  CHECK(get_msr(rig, 0x12345678, none) == 0);
  CHECK(set_msr(rig, 0x12345678, 1) == 0);
  CHECK(set_msr(rig, 0xc0000082, std::uint64_t{1} << 60) == 0);  // not canonical
  struct {
    kvm_msrs header{.nmsrs = 3, .pad = 0, .entries = {}};
    kvm_msr_entry entries[3]{};
  } several;
  several.entries[0].index = 0x277;
  several.entries[1].index = 0x12345678;
  several.entries[2].index = 0x174;
  CHECK(answer(rig.of_vcpu(), KVM_GET_MSRS, &several) == 1);
  CHECK(answer_to(rig.of_vcpu(), KVM_GET_MSRS, kvm_msrs{.nmsrs = 257, .pad = 0, .entries = {}}) == -E2BIG);
}

TEST_CASE("the guest's reads and writes of MSRs") {
  Rig rig(Rig::Chips::kInKernel);
  rig.load(msr_guest());
  std::byte* at = rig.ram.data() + 0x2000;
  const auto access = [&](std::uint32_t index, bool write, std::uint64_t value = 0) {
    store(at, index);
    store(at + 8, value);
    store(at + 16, std::uint32_t{write});
    return rig.next_report();
  };
  CHECK(access(0xc0000082, true, 0xffffffff81234567) == 0x600d);
  std::uint64_t got = 0;
  CHECK(get_msr(rig, 0xc0000082, got) == 1);
  CHECK(got == 0xffffffff81234567);
  CHECK(access(0xc0000082, false) == 0x81234567);
  CHECK(load<std::uint32_t>(at + 28) == 0xffffffff);
  CHECK(access(0xc0000082, true, std::uint64_t{1} << 60) == 0xd6d6);
  CHECK(access(0xdeadbeef, false) == 0xd6d6);
  CHECK(access(0xdeadbeef, true, 0) == 0xd6d6);
  CHECK(access(0x1b, false) == rig.vcpus[0].sregs().apic_base);
  // It goes on as it was.
  CHECK(access(0x277, false) == 0x00070406);
}

TEST_CASE("events: what they say of a new vCPU, and what is refused") {
  Rig rig;
  rig.add_vcpu();
  kvm_vcpu_events events{};
  REQUIRE(answer(rig.of_vcpu(), KVM_GET_VCPU_EVENTS, &events) == 0);
  CHECK(events.exception.injected == 0);
  CHECK(events.interrupt.injected == 0);
  CHECK(events.nmi.injected + events.nmi.pending + events.nmi.masked == 0);
  events.flags = 0x80000000;
  CHECK(answer(rig.of_vcpu(), KVM_SET_VCPU_EVENTS, &events) == -EINVAL);
  events = {};
  events.exception.injected = 1;
  events.exception.nr = 32;
  CHECK(answer(rig.of_vcpu(), KVM_SET_VCPU_EVENTS, &events) == -EINVAL);
  events.exception.nr = 2;  // NMIs are no exceptions
  CHECK(answer(rig.of_vcpu(), KVM_SET_VCPU_EVENTS, &events) == -EINVAL);
}
