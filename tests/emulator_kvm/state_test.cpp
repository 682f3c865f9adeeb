// vCPU state before and after LAUNCH_UPDATE_VMSA, and the tables of CPUID and MSRs.
#include <array>

#include "emulator/kvm/cpuid_table.hpp"
#include "emulator/kvm/msr_store.hpp"
#include "emulator/kvm/register_state.hpp"
#include "sev/initial_vmsa.hpp"
#include "tests/emulator_kvm/fixture.hpp"

using namespace sevisor;
using namespace sevisor::test;
using emulator::RegisterState;

namespace {

// As QEMU resets an x86 processor.
void reset_as_qemu(kvm_sregs& sregs, kvm_regs& regs, std::uint32_t signature) {
  const auto segment = [](std::uint16_t selector, std::uint64_t base, std::uint8_t type, std::uint8_t s) {
    kvm_segment out{};
    out.selector = selector;
    out.base = base;
    out.limit = 0xffff;
    out.type = type;
    out.s = s;
    out.present = 1;
    return out;
  };
  sregs.cs = segment(0xf000, 0xffff0000, 0xb, 1);
  sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = segment(0, 0, 3, 1);
  sregs.tr = segment(0, 0, 0xb, 0);
  sregs.ldt = segment(0, 0, 2, 0);
  sregs.gdt.limit = sregs.idt.limit = 0xffff;
  sregs.cr0 = 0x60000010;
  regs = {};
  regs.rdx = signature;
  regs.rip = 0xfff0;
  regs.rflags = 2;
}

std::vector<std::byte> bytes_of(const sev::Vmsa& vmsa) {
  std::vector<std::byte> bytes(sizeof vmsa);
  std::memcpy(bytes.data(), &vmsa, sizeof vmsa);
  return bytes;
}

}  // namespace

TEST_CASE("registers set as QEMU sets them make the VMSA that measurement tools compute") {
  RegisterState state;
  kvm_sregs sregs{};
  kvm_regs regs{};
  reset_as_qemu(sregs, regs, 0x800f12);
  REQUIRE(state.set_sregs(sregs, std::nullopt));
  state.set_regs(regs);
  CHECK(bytes_of(state.vmsa()) == bytes_of(sev::initial_vmsa(sev::kBspResetAddress, 0x800f12, sev::VmsaForm::kEsInit)));
}

TEST_CASE("a vCPU that nobody touched has KVM's own reset state") {
  const sev::Vmsa vmsa = RegisterState().vmsa();
  CHECK(vmsa.cs.attributes == 0x9a);
  CHECK(vmsa.ss.attributes == 0x92);
  CHECK(vmsa.tr.attributes == 0x83);
  CHECK(vmsa.rdx == 0x600);
  CHECK(vmsa.efer == 0x1000);
  CHECK(vmsa.cr0 == 0x10);
  CHECK(vmsa.cr4 == 0x40);
}

TEST_CASE("segments read and written back gain the accessed bit, where KVM shows it") {
  RegisterState state;
  kvm_sregs sregs{};
  state.get_sregs(sregs);
  REQUIRE(state.set_sregs(sregs, std::nullopt));
  const sev::Vmsa vmsa = state.vmsa();
  CHECK(vmsa.ds.attributes == 0x93);
  CHECK(vmsa.gs.attributes == 0x93);
  CHECK(vmsa.ss.attributes == 0x92);
  CHECK(vmsa.cs.attributes == 0x9a);
  CHECK(vmsa.tr.attributes == 0x83);
}

TEST_CASE("SREGS that no processor has are refused") {
  RegisterState state;
  kvm_sregs good{};
  state.get_sregs(good);
  const auto accepted = [&](auto change, std::optional<unsigned> c_bit = 51) {
    kvm_sregs sregs = good;
    change(sregs);
    return RegisterState(state).set_sregs(sregs, c_bit);
  };
  const auto long_mode = [](kvm_sregs& s) {
    s.cr0 = 0x80000011;
    s.cr4 = 0x20;
    s.efer = 0x500;
    s.cs.l = 1;
  };
  CHECK(accepted(long_mode));
  CHECK_FALSE(accepted([](kvm_sregs& s) { s.cr0 = 0x80000010; }));  // PG without PE
  CHECK_FALSE(accepted([](kvm_sregs& s) { s.cr4 = 1 << 12; }));     // LA57
  CHECK_FALSE(accepted([](kvm_sregs& s) { s.efer = 2; }));
  CHECK_FALSE(accepted([&](kvm_sregs& s) { long_mode(s), s.cr4 = 0; }));       // no PAE
  CHECK_FALSE(accepted([&](kvm_sregs& s) { long_mode(s), s.efer = 0x100; }));  // LMA clear
  CHECK_FALSE(accepted([](kvm_sregs& s) { s.cs.l = 1; }));                     // not in long mode
  const auto encrypted_tables = [&](kvm_sregs& s) { long_mode(s), s.cr3 = 1ull << 51 | 0x1000; };
  CHECK(accepted(encrypted_tables));
  CHECK_FALSE(accepted(encrypted_tables, std::nullopt));  // CPUID did not name the C-bit
}

TEST_CASE_METHOD(HostFixture, "a protected vCPU shows little, and takes writes without effect") {
  REQUIRE(call(vm, KVM_CREATE_IRQCHIP) == 0);
  REQUIRE(sev(KVM_SEV_ES_INIT) == 0);
  REQUIRE(start() == 0);
  const int vcpu = call(vm, KVM_CREATE_VCPU, 0ul);
  kvm_sregs sregs{};
  kvm_regs regs{};
  reset_as_qemu(sregs, regs, 0x800f12);
  sregs.apic_base = 0xfee00900;
  CHECK(call(vcpu, KVM_SET_SREGS, &sregs) == 0);
  CHECK(call(vcpu, KVM_SET_REGS, &regs) == 0);
  CHECK(call(vcpu, KVM_GET_REGS, &regs) == 0);
  CHECK(regs.rip == 0xfff0);
  REQUIRE(sev(KVM_SEV_LAUNCH_UPDATE_VMSA) == 0);
  CHECK(call(vcpu, KVM_GET_REGS, &regs) == 0);
  CHECK(regs.rip == 0);
  CHECK(call(vcpu, KVM_SET_REGS, &regs) == 0);
  CHECK(call(vcpu, KVM_GET_SREGS, &sregs) == 0);
  CHECK(sregs.cs.base == 0);
  CHECK(sregs.apic_base == 0xfee00900);
  struct {
    kvm_msrs header;
    kvm_msr_entry entry;
  } msrs{};
  msrs.header.nmsrs = 1;
  msrs.entry = {.index = 0xc0000080, .reserved = 0, .data = 0x500};
  CHECK(call(vcpu, KVM_SET_MSRS, &msrs) == 1);
  CHECK(call(vcpu, KVM_GET_MSRS, &msrs) == 1);
  CHECK(msrs.entry.data == 0);
  msrs.entry.index = 0x12345;
  CHECK(call(vcpu, KVM_GET_MSRS, &msrs) == 0);
}

TEST_CASE_METHOD(HostFixture, "MP_STATE: defaults, and what is accepted") {
  const int lonely = call(vm, KVM_CREATE_VCPU, 1ul);
  kvm_mp_state state{};
  CHECK(call(lonely, KVM_GET_MP_STATE, &state) == 0);
  CHECK(state.mp_state == KVM_MP_STATE_RUNNABLE);
  state.mp_state = KVM_MP_STATE_HALTED;
  CHECK(call(lonely, KVM_SET_MP_STATE, &state) == -EINVAL);  // needs a local APIC
  std::array<std::byte, 1024> apic{};
  CHECK(call(lonely, KVM_GET_LAPIC, apic.data()) == -EINVAL);

  vm = call(kvm_fd, KVM_CREATE_VM, 0ul);
  REQUIRE(call(vm, KVM_CREATE_IRQCHIP) == 0);
  const int first = call(vm, KVM_CREATE_VCPU, 0ul);
  const int second = call(vm, KVM_CREATE_VCPU, 1ul);
  CHECK(call(first, KVM_GET_MP_STATE, &state) == 0);
  CHECK(state.mp_state == KVM_MP_STATE_RUNNABLE);
  CHECK(call(second, KVM_GET_MP_STATE, &state) == 0);
  CHECK(state.mp_state == KVM_MP_STATE_UNINITIALIZED);
  for (const std::uint32_t value : {0u, 1u, 2u, 3u, 9u}) {
    state.mp_state = value;
    CHECK(call(second, KVM_SET_MP_STATE, &state) == 0);
  }
  state.mp_state = 77;
  CHECK(call(second, KVM_SET_MP_STATE, &state) == -EINVAL);
  CHECK(call(second, KVM_GET_LAPIC, apic.data()) == 0);
  CHECK(std::to_integer<unsigned>(apic[0x23]) == 1);  // the APIC ID
}

TEST_CASE_METHOD(HostFixture, "the offered CPUID names SEV-ES and no more than the processor can do") {
  struct {
    kvm_cpuid2 header;
    kvm_cpuid_entry2 entries[64];
  } table{};
  table.header.nent = 3;
  CHECK(call(kvm_fd, KVM_GET_SUPPORTED_CPUID, &table) == -E2BIG);
  table.header.nent = 64;
  REQUIRE(call(kvm_fd, KVM_GET_SUPPORTED_CPUID, &table) == 0);
  const std::span entries(table.entries, table.header.nent);
  const auto* sev_leaf = emulator::find_cpuid(entries, 0x8000001f, 0);
  REQUIRE(sev_leaf != nullptr);
  CHECK(sev_leaf->eax == 0xa);
  CHECK((sev_leaf->ebx & 0x3f) == 51);
  CHECK(sev_leaf->edx > 1);  // there are ASIDs of both kinds
  CHECK(sev_leaf->edx <= sev_leaf->ecx);
  const auto* features = emulator::find_cpuid(entries, 1, 0);
  CHECK((features->ecx >> 28 & 1) == (__builtin_cpu_supports("avx") != 0));
  const auto* more = emulator::find_cpuid(entries, 7, 0);
  REQUIRE(more != nullptr);
  CHECK((more->ebx >> 5 & 1) == (__builtin_cpu_supports("avx2") != 0));
  CHECK((more->ebx & (1u << 16)) == 0);  // AVX-512, whatever the host has
  const auto* areas = emulator::find_cpuid(entries, 0xd, 0);
  REQUIRE(areas != nullptr);
  CHECK(areas->eax == (__builtin_cpu_supports("avx") != 0 ? 7 : 3));
  CHECK(areas->ecx == (__builtin_cpu_supports("avx") != 0 ? 832 : 576));  // APM vol. 2 figure 11-8, table 11-3
  CHECK((features->ecx & (1u << 31)) != 0);                               // hypervisor
  CHECK((features->ecx & (1u << 30)) != 0);                               // RDRAND, which Linux insists on
  CHECK(emulator::find_cpuid(entries, 0x40000000, 0) == nullptr);
}

TEST_CASE("CPUID answers that depend on the guest") {
  const auto table = emulator::supported_cpuid(51);
  CHECK((emulator::answer_cpuid(table, 1, 0, {.osxsave = true}).ecx >> 27 & 1) == 1);
  CHECK((emulator::answer_cpuid(table, 1, 0, {.osxsave = false}).ecx >> 27 & 1) == 0);
  // APM vol. 2, 16.3.2: a disabled local APIC is not advertised.
  CHECK((emulator::answer_cpuid(table, 1, 0, {}).edx >> 9 & 1) == 1);
  CHECK((emulator::answer_cpuid(table, 1, 0, {.apic = false}).edx >> 9 & 1) == 0);
  CHECK((emulator::answer_cpuid(table, 0x80000001, 0, {.apic = false}).edx >> 9 & 1) == 0);
  CHECK(emulator::answer_cpuid(table, 0xd, 0, {.xcr0 = 3}).ebx == 576);
  CHECK(emulator::answer_cpuid(table, 0xd, 0, {.xcr0 = 7}).ebx == 832);
  CHECK(emulator::answer_cpuid(table, 0xd, 1, {.xcr0 = 3}).ebx == 576);
  CHECK(emulator::answer_cpuid(table, 0xd, 1, {.xcr0 = 7}).ebx == 832);
  CHECK(emulator::answer_cpuid(table, 0xb, 5, {}).ecx == 5);
  CHECK(emulator::answer_cpuid(table, 0x40000000, 0, {}) == ghcb::CpuidValues{});
}

TEST_CASE("MSRs that KVM keeps") {
  emulator::MsrStore msrs;
  CHECK(msrs.read(0x10, 1234) == 1234);
  CHECK(msrs.read(0xfe, 0) == 0x508);
  CHECK_FALSE(msrs.write(0xfe, 0));
  CHECK(msrs.write(0x2ff, 0xc06));
  CHECK(msrs.read(0x2ff, 0) == 0xc06);
  CHECK_FALSE(msrs.write(0x2ff, 0x1000));
  CHECK_FALSE(msrs.write(0x250, 0x0202020202020202));  // no memory type 2
  CHECK(msrs.write(0x201, 0xffff'8000'0800));
  CHECK_FALSE(msrs.write(0x201, 1ull << 50));
  CHECK_FALSE(msrs.read(0x4b564d00, 0).has_value());  // no kvmclock
  CHECK_FALSE(msrs.write(0xc0000080, 0));             // the VMSA's
}

TEST_CASE_METHOD(HostFixture, "the clock is the virtual one") {
  kvm_clock_data clock{};
  CHECK(call(vm, KVM_GET_CLOCK, &clock) == 0);
  CHECK(clock.clock == 0);
  clock.clock = 5000;
  CHECK(call(vm, KVM_SET_CLOCK, &clock) == 0);
  CHECK(call(vm, KVM_GET_CLOCK, &clock) == 0);
  CHECK(clock.clock == 5000);
}
