// KVM_SEV_INIT2 and the VMs that it is for. The points of the kernel's own sev_init2_tests are marked so.
#include <array>

#include "sev/initial_vmsa.hpp"
#include "tests/emulator_kvm/fake_cpu.hpp"
#include "tests/emulator_kvm/fixture.hpp"

using namespace sevisor;
using namespace sevisor::test;

namespace {

struct Init2Fixture : HostFixture {
  Init2Fixture() { new_vm(kvm::kVmTypeSevEs); }
  void new_vm(unsigned long type) { vm = call(kvm_fd, KVM_CREATE_VM, type); }
  int init2(const kvm::SevInit& init = {}) {
    kvm::SevInit copy = init;
    return sev(kvm::kSevInit2, &copy);
  }
};

}  // namespace

TEST_CASE_METHOD(Init2Fixture, "KVM_SEV_INIT2 checks its struct") {
  CHECK(sev(kvm::kSevInit2, nullptr) == -EFAULT);
  // sev_init2_tests: each flag, each feature that is not offered.
  for (unsigned bit = 0; bit < 32; ++bit) CHECK(init2({.flags = 1U << bit}) == -EINVAL);
  for (unsigned bit = 0; bit < 64; ++bit) CHECK(init2({.vmsa_features = std::uint64_t{1} << bit}) == -EINVAL);
  CHECK(init2({.ghcb_version = 3}) == -EINVAL);
  CHECK(init2({.pad1 = 1, .pad2 = {1}}) == 0);  // the pads are not looked at
  CHECK(firmware_error == 0);
  CHECK(init2() == -EINVAL);
}

TEST_CASE_METHOD(Init2Fixture, "each kind of VM has its own initialisation") {
  // sev_init2_tests: VMs of the default type.
  new_vm(kvm::kVmTypeDefault);
  CHECK(init2() == -EINVAL);
  for (const unsigned long type : {kvm::kVmTypeSev, kvm::kVmTypeSevEs}) {
    new_vm(type);
    CHECK(sev(KVM_SEV_INIT) == -EINVAL);
    CHECK(sev(KVM_SEV_ES_INIT) == -EINVAL);
    CHECK(start() == -ENOTTY);
  }
  new_vm(kvm::kVmTypeSev);
  CHECK(init2({.ghcb_version = 1}) == -EINVAL);  // it has no GHCB
  CHECK(init2({.vmsa_features = 1}) == -EINVAL);
  CHECK(init2() == 0);
  new_vm(kvm::kVmTypeSevEs);
  REQUIRE(call(vm, KVM_CREATE_VCPU, 0ul) >= 0);
  CHECK(init2() == -EINVAL);
}

// Linux arch/x86/kvm/x86.c, kvm_sync_valid_fields().
TEST_CASE_METHOD(Init2Fixture, "a VM whose registers nobody sees hands none over in kvm_run") {
  CHECK(call(vm, KVM_CHECK_EXTENSION, static_cast<unsigned long>(KVM_CAP_SYNC_REGS)) == 0);
  REQUIRE(init2() == 0);
  const int vcpu = call(vm, KVM_CREATE_VCPU, 0ul);
  auto* run = static_cast<kvm_run*>(host->mmap(vcpu, 12288));
  REQUIRE(run != nullptr);
  run->immediate_exit = 1;
  run->kvm_valid_regs = KVM_SYNC_X86_REGS;
  CHECK(call(vcpu, KVM_RUN) == -EINVAL);
  new_vm(kvm::kVmTypeDefault);
  CHECK(call(vm, KVM_CHECK_EXTENSION, static_cast<unsigned long>(KVM_CAP_SYNC_REGS)) == 7);
}

TEST_CASE_METHOD(Init2Fixture, "CPUID and KVM_CAP_VM_TYPES agree") {
  struct {
    kvm_cpuid2 header;
    kvm_cpuid_entry2 entries[64];
  } table{};
  table.header.nent = 64;
  REQUIRE(call(kvm_fd, KVM_GET_SUPPORTED_CPUID, &table) == 0);
  const int types = call(kvm_fd, KVM_CHECK_EXTENSION, 235ul);
  bool found = false;
  for (std::uint32_t i = 0; i < table.header.nent; ++i) {
    if (table.entries[i].function != 0x8000001f) continue;
    found = true;
    CHECK((table.entries[i].eax >> 1 & 1) == (static_cast<unsigned>(types) >> 2 & 1));
    CHECK((table.entries[i].eax >> 3 & 1) == (static_cast<unsigned>(types) >> 3 & 1));
    CHECK((table.entries[i].eax >> 4 & 1) == (static_cast<unsigned>(types) >> 4 & 1));
  }
  CHECK(found);
}

TEST_CASE_METHOD(Init2Fixture, "read-only slots are for VMs whose instructions KVM can emulate") {
  CHECK(call(kvm_fd, KVM_CHECK_EXTENSION, static_cast<unsigned long>(KVM_CAP_READONLY_MEM)) == 1);
  CHECK(call(vm, KVM_CHECK_EXTENSION, static_cast<unsigned long>(KVM_CAP_READONLY_MEM)) == 0);
  CHECK(slot(0, 0, 0x1000, ram.data(), KVM_MEM_READONLY) == -EINVAL);
  CHECK(slot(0, 0, 0x1000, ram.data()) == 0);
}

TEST_CASE_METHOD(Init2Fixture, "a vCPU runs only after KVM_SEV_INIT2") {
  const int vcpu = call(vm, KVM_CREATE_VCPU, 0ul);
  REQUIRE(vcpu >= 0);
  CHECK(call(vcpu, KVM_RUN) == -EINVAL);
}

TEST_CASE_METHOD(Init2Fixture, "a protected vCPU hides its registers") {
  REQUIRE(init2() == 0);
  REQUIRE(start() == 0);
  const int vcpu = call(vm, KVM_CREATE_VCPU, 0ul);
  alignas(16) std::array<std::byte, 8192> any{};
  const unsigned long registers[] = {KVM_GET_REGS, KVM_SET_REGS, KVM_GET_SREGS,     KVM_SET_SREGS,
                                     KVM_GET_FPU,  KVM_SET_FPU,  KVM_GET_XSAVE,     KVM_SET_XSAVE,
                                     KVM_GET_XCRS, KVM_SET_XCRS, KVM_GET_DEBUGREGS, KVM_SET_DEBUGREGS};
  struct {
    kvm_msrs header;
    kvm_msr_entry entries[3];
  } msrs{};
  msrs.header.nmsrs = 3;
  msrs.entries[0].index = 0x10;
  msrs.entries[1].index = 0xc0000082;
  msrs.entries[2].index = 0x10;
  for (std::size_t i = 0; i < std::size(registers); i += 2) CHECK(call(vcpu, registers[i], any.data()) == 0);
  CHECK(call(vcpu, KVM_GET_MSRS, &msrs) == 3);
  REQUIRE(sev(KVM_SEV_LAUNCH_UPDATE_VMSA) == 0);
  for (const unsigned long request : registers) CHECK(call(vcpu, request, any.data()) == -EINVAL);
  CHECK(call(vcpu, KVM_GET_MSRS, &msrs) == 1);  // LSTAR is the guest's
  CHECK(call(vcpu, KVM_SET_MSRS, &msrs) == 1);
  CHECK(call(vcpu, KVM_GET_VCPU_EVENTS, any.data()) == 0);
  CHECK(call(vcpu, KVM_GET_MP_STATE, any.data()) == 0);
}

TEST_CASE_METHOD(Init2Fixture, "the FPU's state is in the VMSA, and the GHCB version is what was asked for") {
  const auto [asked, offered] =
      GENERATE(std::pair<std::uint16_t, unsigned>{0, 2}, std::pair<std::uint16_t, unsigned>{1, 1},
               std::pair<std::uint16_t, unsigned>{2, 2});
  REQUIRE(init2({.ghcb_version = asked}) == 0);
  REQUIRE(start() == 0);
  const int vcpu = call(vm, KVM_CREATE_VCPU, 0ul);
  std::array<std::byte, 4096> area{};
  REQUIRE(call(vcpu, KVM_GET_XSAVE, area.data()) == 0);
  area[4] = std::byte{0x80};       // abridged tags: one register
  area[32 + 7] = std::byte{0x80};  // 1.0 in ST(0)
  area[32 + 8] = std::byte{0xff};
  area[32 + 9] = std::byte{0x3f};
  area[160 + 4 * 16] = std::byte{0x44};  // XMM4
  area[512] = std::byte{3};              // x87 and SSE
  REQUIRE(call(vcpu, KVM_SET_XSAVE, area.data()) == 0);
  REQUIRE(sev(KVM_SEV_LAUNCH_UPDATE_VMSA) == 0);
  emulator::Vmsa seen{};
  std::uint64_t first_msr = 0;
  set_guest_code(0, [&](Guest& guest, const emulator::RunControls&) {
    seen = guest.state;
    first_msr = guest.ghcb_msr;
    emulator::CpuExit shutdown;
    shutdown.code = 0x7f;
    return shutdown;
  });
  kvm_sev_launch_measure measure{};
  std::array<std::byte, 48> blob{};
  measure.uaddr = reinterpret_cast<std::uintptr_t>(blob.data());
  measure.len = 48;
  REQUIRE(sev(KVM_SEV_LAUNCH_MEASURE, &measure) == 0);
  REQUIRE(sev(KVM_SEV_LAUNCH_FINISH) == 0);
  REQUIRE(call(vcpu, KVM_RUN) == 0);
  CHECK(first_msr >> 48 == offered);
  CHECK(seen.x87_fcw == 0x37f);
  CHECK(seen.mxcsr == 0x1f80);
  CHECK(seen.x87_ftw == 0x80);
  CHECK(seen.x87_registers[7] == 0x80);
  CHECK(seen.x87_registers[64] == 0xff);
  CHECK(seen.x87_registers[65] == 0x3f);
  CHECK(seen.xmm[4][0] == 0x44);
  CHECK(seen.sev_features == 0);
}

TEST_CASE_METHOD(Init2Fixture, "KVM_SET_XSAVE refuses what this processor has not") {
  const int vcpu = call(vm, KVM_CREATE_VCPU, 0ul);
  std::array<std::byte, 4096> area{};
  REQUIRE(call(vcpu, KVM_GET_XSAVE, area.data()) == 0);
  const auto refused = [&](std::size_t at, int value) {
    auto changed = area;
    changed[at] = static_cast<std::byte>(value);
    return call(vcpu, KVM_SET_XSAVE, changed.data()) == -EINVAL;
  };
  CHECK(refused(519, 0x40));  // a component
  CHECK(refused(527, 0x80));  // compacted
  CHECK(refused(530, 1));     // reserved
  area[512] = std::byte{2};
  CHECK(refused(27, 1));  // MXCSR
  CHECK(call(vcpu, KVM_SET_XSAVE, area.data()) == 0);
}
