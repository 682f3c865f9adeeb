// Mirrors of an encryption context, and VMs that it moves to: what the kernel's own sev_migrate_tests do not look at.
// Those are in tests/conformance.
#include <algorithm>
#include <array>

#include "ghcb/page.hpp"
#include "tests/emulator_kvm/fake_cpu.hpp"
#include "tests/emulator_kvm/fixture.hpp"

using namespace sevisor;
using namespace sevisor::test;

namespace {

constexpr auto kMirror = static_cast<std::uint32_t>(KVM_CAP_VM_COPY_ENC_CONTEXT_FROM);
constexpr auto kMove = static_cast<std::uint32_t>(KVM_CAP_VM_MOVE_ENC_CONTEXT_FROM);

struct Contexts : HostFixture {
  int make_vm(int vcpus, unsigned long type = 0) {
    const int made = call(kvm_fd, KVM_CREATE_VM, type);
    REQUIRE(made >= 0);
    add_vcpus(made, vcpus);
    return made;
  }
  void add_vcpus(int of, int vcpus) {
    for (int i = 0; i < vcpus; ++i) last_vcpu = call(of, KVM_CREATE_VCPU, static_cast<unsigned long>(i));
  }
  int on(int of, std::uint32_t id, void* data = nullptr) {
    const int before = std::exchange(vm, of);
    const int result = sev(id, data);
    vm = before;
    return result;
  }
  // A launched guest with `vcpus` protected ones.
  int make_guest(int vcpus, std::uint32_t policy = 5) {
    const int made = make_vm(0);
    REQUIRE(on(made, KVM_SEV_ES_INIT) == 0);
    add_vcpus(made, vcpus);
    kvm_sev_launch_start params{};
    params.policy = policy;
    REQUIRE(on(made, KVM_SEV_LAUNCH_START, &params) == 0);
    REQUIRE(on(made, KVM_SEV_LAUNCH_UPDATE_VMSA) == 0);
    return made;
  }
  int enable(std::uint32_t capability, int destination, int source) {
    kvm_enable_cap cap{};
    cap.cap = capability;
    cap.args[0] = static_cast<std::uint64_t>(source);
    return call(destination, KVM_ENABLE_CAP, &cap);
  }
  int move(int destination, int source) { return enable(kMove, destination, source); }
  int mirror(int destination, int source) { return enable(kMirror, destination, source); }
  int last_vcpu = -1;
};

}  // namespace

TEST_CASE_METHOD(Contexts, "both capabilities are there") {
  CHECK(call(vm, KVM_CHECK_EXTENSION, static_cast<unsigned long>(kMirror)) == 1);
  CHECK(call(vm, KVM_CHECK_EXTENSION, static_cast<unsigned long>(kMove)) == 1);
}

TEST_CASE_METHOD(Contexts, "a context moves along a chain of VMs, and each it left is dead") {
  // sev_migrate_tests: three moves, four vCPUs each.
  std::array<int, 4> chain{make_guest(4), make_vm(4), make_vm(4), make_vm(4)};
  const int vcpu_of_third = last_vcpu;
  for (std::size_t i = 1; i < chain.size(); ++i) REQUIRE(move(chain[i], chain[i - 1]) == 0);
  CHECK(move(chain[0], chain[3]) == -EIO);
  CHECK(move(chain[3], chain[0]) == -EINVAL);  // both ends are wrong: the destination has a context
  for (std::size_t i = 0; i < 3; ++i) {
    CHECK(call(chain[i], KVM_CHECK_EXTENSION, 0ul) == -EIO);
    CHECK(call(chain[i], KVM_MEMORY_ENCRYPT_OP) == -EIO);
    CHECK(call(chain[i], 0xaeff) == -EIO);
  }
  kvm_regs regs{};
  CHECK(call(vcpu_of_third, KVM_GET_REGS, &regs) == 0);
  // The number of /dev/sev stays behind in KVM.
  kvm_sev_guest_status status{};
  CHECK(on(chain[3], KVM_SEV_GUEST_STATUS, &status) == -EBADF);
}

TEST_CASE_METHOD(Contexts, "a vCPU of a VM that was left answers EIO to everything") {
  const int source = make_guest(1);
  const int vcpu = last_vcpu;
  const int destination = make_vm(1);
  REQUIRE(move(destination, source) == 0);
  kvm_regs regs{};
  for (const unsigned long request : {KVM_GET_REGS, KVM_SET_REGS, 0xaefful}) CHECK(call(vcpu, request, &regs) == -EIO);
  CHECK(call(vcpu, KVM_RUN) == -EIO);
  CHECK(host->close(source) == 0);
  CHECK(host->close(vcpu) == 0);
}

TEST_CASE_METHOD(Contexts, "what a move refuses") {
  // sev_migrate_tests: test_sev_migrate_parameters.
  const int guest = make_guest(2);
  const int plain = make_vm(2);
  const int other_count = make_vm(1);
  const int none = make_vm(0);
  const int newer = make_vm(2, kvm::kVmTypeSevEs);
  const int unprotected = make_vm(0);
  REQUIRE(on(unprotected, KVM_SEV_ES_INIT) == 0);
  add_vcpus(unprotected, 2);
  CHECK(move(plain, make_vm(2)) == -EINVAL);  // the source is no SEV guest
  CHECK(move(guest, guest) == -EINVAL);
  CHECK(move(other_count, guest) == -EINVAL);
  CHECK(move(none, guest) == -EINVAL);
  CHECK(move(newer, guest) == -EINVAL);  // another type
  CHECK(move(plain, unprotected) == -EINVAL);
  CHECK(move(guest, unprotected) == -EINVAL);  // the destination is one already
  CHECK(move(plain, kvm_fd) == -EBADF);
  CHECK(move(plain, 12345) == -EBADF);
  CHECK(move(plain, guest) == 0);
}

TEST_CASE_METHOD(Contexts, "a mirror runs vCPUs of its own in its owner's context") {
  const int owner = make_guest(1);
  const int copy = make_vm(0);
  REQUIRE(mirror(copy, owner) == 0);
  add_vcpus(copy, 4);
  CHECK(on(copy, KVM_SEV_LAUNCH_UPDATE_VMSA) == 0);
  // sev_migrate_tests: verify_mirror_allowed_cmds.
  for (std::uint32_t id = 0; id <= 102; ++id) {
    if (id == 4 || id == 16 || id == 17 || id == 18) continue;
    INFO("command " << id);
    CHECK(on(copy, id) == -EINVAL);
  }
  kvm_sev_guest_status status{};
  CHECK(on(copy, KVM_SEV_GUEST_STATUS, &status) == 0);
  CHECK(status.policy == 5);
  CHECK(call_with(copy, KVM_MEMORY_ENCRYPT_REG_REGION, kvm_enc_region{}) == -EINVAL);
  CHECK(call_with(copy, KVM_MEMORY_ENCRYPT_UNREG_REGION, kvm_enc_region{}) == -EINVAL);
  // The owner's context outlives its descriptor while there is a mirror.
  CHECK(host->close(owner) == 0);
  CHECK(on(copy, KVM_SEV_GUEST_STATUS, &status) == 0);
}

TEST_CASE_METHOD(Contexts, "what a mirror refuses") {
  // sev_migrate_tests: test_sev_mirror_parameters.
  const int owner = make_guest(1);
  const int copy = make_vm(0);
  CHECK(mirror(owner, owner) == -EINVAL);
  CHECK(mirror(copy, make_vm(0)) == -EINVAL);
  CHECK(mirror(make_vm(1), owner) == -EINVAL);
  CHECK(mirror(make_guest(1), owner) == -EINVAL);
  CHECK(mirror(copy, kvm_fd) == -EBADF);
  REQUIRE(mirror(copy, owner) == 0);
  CHECK(mirror(make_vm(0), copy) == -EINVAL);  // a mirror of a mirror
}

TEST_CASE_METHOD(Contexts, "owner and mirror see the same plaintext in the same memory") {
  const int owner = make_vm(0);
  REQUIRE(on(owner, KVM_SEV_ES_INIT) == 0);
  kvm_sev_launch_start params{};
  params.policy = 4;
  REQUIRE(on(owner, KVM_SEV_LAUNCH_START, &params) == 0);
  std::memset(ram.data(), 0x5a, 4096);
  kvm_sev_launch_update_data data{};
  data.uaddr = reinterpret_cast<std::uintptr_t>(ram.data());
  data.len = 4096;
  REQUIRE(on(owner, KVM_SEV_LAUNCH_UPDATE_DATA, &data) == 0);
  const int copy = make_vm(0);
  REQUIRE(mirror(copy, owner) == 0);
  std::array<std::byte, 4096> out{};
  kvm_sev_dbg debug{};
  debug.src_uaddr = data.uaddr;
  debug.dst_uaddr = reinterpret_cast<std::uintptr_t>(out.data());
  debug.len = 4096;
  REQUIRE(on(copy, KVM_SEV_DBG_DECRYPT, &debug) == 0);
  CHECK(std::ranges::count(out, std::byte{0x5a}) == 4096);
}

TEST_CASE_METHOD(Contexts, "registers, GHCB address and private memory go along with a move") {
  const int source = make_vm(0);
  REQUIRE(call(source, KVM_CREATE_IRQCHIP) == 0);
  REQUIRE(on(source, KVM_SEV_ES_INIT) == 0);
  const int first = call(source, KVM_CREATE_VCPU, 0ul);
  const auto add_slot = [&](int to) {
    const int before = std::exchange(vm, to);
    REQUIRE(slot(0, 0, 0x10000, ram.data()) == 0);
    vm = before;
  };
  add_slot(source);
  kvm_sev_launch_start params{};
  params.policy = 5;
  REQUIRE(on(source, KVM_SEV_LAUNCH_START, &params) == 0);
  REQUIRE(on(source, KVM_SEV_LAUNCH_UPDATE_VMSA) == 0);
  std::array<std::byte, 48> blob;
  kvm_sev_launch_measure measure{};
  measure.uaddr = reinterpret_cast<std::uintptr_t>(blob.data());
  measure.len = 48;
  REQUIRE(on(source, KVM_SEV_LAUNCH_MEASURE, &measure) == 0);
  REQUIRE(on(source, KVM_SEV_LAUNCH_FINISH) == 0);

  const auto shut_down = [] {
    emulator::CpuExit exit;
    exit.code = 0x7f;
    return exit;
  };
  set_guest_code(0, [&](Guest& guest, const emulator::RunControls&) {
    guest.state.rbx = 0x1234;
    guest.ghcb_msr = 0x7000;
    guest.memory.open(Gpa(0x2000), emulator::View::kPrivate).host[5] = std::byte{0x77};
    guest.spend(1000);
    return shut_down();
  });
  REQUIRE(call(first, KVM_RUN) == 0);
  const int destination = make_vm(0);
  REQUIRE(call(destination, KVM_CREATE_IRQCHIP) == 0);
  add_slot(destination);
  const int second = call(destination, KVM_CREATE_VCPU, 0ul);
  REQUIRE(move(destination, source) == 0);
  bool ran = false;
  set_guest_code(0, [&](Guest& guest, const emulator::RunControls&) {
    ran = true;
    CHECK(guest.state.rbx == 0x1234);
    CHECK(guest.ghcb_msr == 0x7000);
    CHECK(guest.clock.now >= 1000);
    CHECK(guest.memory.open(Gpa(0x2000), emulator::View::kPrivate).host[5] == std::byte{0x77});
    return shut_down();
  });
  REQUIRE(call(second, KVM_RUN) == 0);
  CHECK(ran);
  CHECK(ram.data()[0x2005] != std::byte{0x77});
}

TEST_CASE_METHOD(Contexts, "what a move leaves to user space stays as it was set") {
  // Linux sev_migrate_from() takes VMSA and GHCB state: what KVM knows of control registers, its clock and its timers
  // are not in it.
  const int source = make_guest(1);
  const int first = last_vcpu;
  set_guest_code(0, [&](Guest& guest, const emulator::RunControls&) {
    guest.spend(1'000'000);
    emulator::CpuExit exit;
    exit.code = 0x7f;
    return exit;
  });
  REQUIRE(call(first, KVM_RUN) == 0);
  const int destination = make_vm(0);
  REQUIRE(call(destination, KVM_CREATE_IRQCHIP) == 0);
  const int second = call(destination, KVM_CREATE_VCPU, 0ul);
  kvm_sregs sregs{};
  REQUIRE(call(second, KVM_GET_SREGS, &sregs) == 0);
  sregs.cr4 = 1 << 18 | 1 << 5;
  REQUIRE(call(second, KVM_SET_SREGS, &sregs) == 0);
  kvm_clock_data clock{};
  clock.clock = 77'000;
  REQUIRE(call(destination, KVM_SET_CLOCK, &clock) == 0);
  kvm_lapic_state lapic{};
  REQUIRE(call(second, KVM_GET_LAPIC, &lapic) == 0);
  const auto at = [&lapic](unsigned offset) -> __u32& { return *reinterpret_cast<__u32*>(lapic.regs + offset); };
  at(0x0f0) = 0x1ff;  // enabled
  at(0x320) = 0x31;   // one-shot
  at(0x3e0) = 0xb;    // divided by 1
  at(0x380) = at(0x390) = 5000;
  REQUIRE(call(second, KVM_SET_LAPIC, &lapic) == 0);

  REQUIRE(move(destination, source) == 0);
  REQUIRE(call(second, KVM_GET_SREGS, &sregs) == 0);
  CHECK(sregs.cr4 == (1 << 18 | 1 << 5));
  REQUIRE(call(destination, KVM_GET_CLOCK, &clock) == 0);
  CHECK(clock.clock == 77'000);
  REQUIRE(call(second, KVM_GET_LAPIC, &lapic) == 0);
  CHECK(at(0x390) == 5000);
  CHECK(at(0x210) == 0);  // vector 0x31 is not requested
}

TEST_CASE_METHOD(Contexts, "the AP jump table stays behind") {
  // Linux struct kvm_sev_info ap_jump_table, which sev_migrate_from() leaves out. GHCB specification 4.1.5: SET is 0,
  // GET 1.
  const auto guest_with = [this](int in) {
    REQUIRE(on(in, KVM_SEV_ES_INIT) == 0);
    const int made = call(in, KVM_CREATE_VCPU, 0ul);
    kvm_sev_launch_start params{};
    params.policy = 5;
    REQUIRE(on(in, KVM_SEV_LAUNCH_START, &params) == 0);
    REQUIRE(on(in, KVM_SEV_LAUNCH_UPDATE_VMSA) == 0);
    return made;
  };
  const auto add_slot = [this](int to) {
    const int before = std::exchange(vm, to);
    REQUIRE(slot(0, 0, 0x10000, ram.data()) == 0);
    vm = before;
  };
  // One request a KVM_RUN: what it answers is seen in the next.
  std::uint64_t operation = 0;
  std::uint64_t answer = ~std::uint64_t{0};
  bool asked = false;
  set_guest_code(0, [&](Guest& guest, const emulator::RunControls&) {
    guest.ghcb_msr = 0x3000;
    auto& page = *reinterpret_cast<ghcb::Page*>(guest.memory.open(Gpa(0x3000), emulator::View::kShared).host);
    emulator::CpuExit exit;
    exit.code = 0x7f;
    if (std::exchange(asked, !asked)) {
      answer = page.exit_info_2;
      return exit;
    }
    page.exit_code = 0x80000005;
    page.exit_info_1 = operation;
    page.exit_info_2 = 0x8000;
    page.valid.clear();
    for (const auto field : {ghcb::Field::kExitCode, ghcb::Field::kExitInfo1, ghcb::Field::kExitInfo2}) {
      page.valid.set(field);
    }
    exit.code = 0x403;
    return exit;
  });
  const int source = make_vm(0);
  add_slot(source);
  const int first = guest_with(source);
  REQUIRE(call(first, KVM_RUN) == 0);
  operation = 1;
  REQUIRE(call(first, KVM_RUN) == 0);
  CHECK(answer == 0x8000);
  const int destination = make_vm(1);
  const int second = last_vcpu;
  add_slot(destination);
  REQUIRE(move(destination, source) == 0);
  REQUIRE(call(second, KVM_RUN) == 0);
  CHECK(answer == 0);
}
