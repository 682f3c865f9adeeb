// How KVM treats a vCPU, and what it knows of the processor: the ioctls that QEMU 7.2 needs at its start. Errnos and
// counts were read from a live Linux 6.18 kernel.
#include <array>
#include <chrono>
#include <csignal>
#include <pthread.h>
#include <thread>

#include "tests/emulator_kvm/run_fixture.hpp"

using namespace sevisor;
using namespace sevisor::test;
using emulator::RunControls;

namespace {

template <std::size_t Count>
struct Msrs {
  kvm_msrs header{};
  std::array<kvm_msr_entry, Count> entries{};
};

struct Cpuid {
  kvm_cpuid2 header{};
  std::array<kvm_cpuid_entry2, 8> entries{};
};

struct MsrList {
  kvm_msr_list header{};
  std::array<std::uint32_t, 64> indices{};
};

struct SignalMask {
  kvm_signal_mask header{};
  std::array<std::uint8_t, 16> set{};
};

struct Settings : HostFixture {
  int vcpu = call(vm, KVM_CREATE_VCPU, 0ul);
  std::int64_t msr(std::uint32_t index) {
    Msrs<1> msrs;
    msrs.header.nmsrs = 1;
    msrs.entries[0].index = index;
    return call(vcpu, KVM_GET_MSRS, &msrs) == 1 ? static_cast<std::int64_t>(msrs.entries[0].data) : -1;
  }
};

}  // namespace

TEST_CASE_METHOD(Settings, "feature MSRs are listed and read on /dev/kvm") {
  CHECK(call(kvm_fd, KVM_CHECK_EXTENSION, static_cast<unsigned long>(KVM_CAP_GET_MSR_FEATURES)) == 1);
  MsrList list;
  CHECK(call(kvm_fd, KVM_GET_MSR_FEATURE_INDEX_LIST, &list) == -E2BIG);
  REQUIRE(list.header.nmsrs == 2);
  CHECK(call(kvm_fd, KVM_GET_MSR_FEATURE_INDEX_LIST, &list) == 0);
  Msrs<3> msrs;
  msrs.header.nmsrs = 3;
  msrs.entries[0].index = list.indices[0];
  msrs.entries[1].index = list.indices[1];
  msrs.entries[2].index = 0x999;
  CHECK(call(kvm_fd, KVM_GET_MSRS, &msrs) == 2);
  CHECK(msrs.entries[0].index == 0x8b);
  CHECK(msrs.entries[0].data == 0x01000065);  // Linux: what a guest sees of the microcode's level
  CHECK(msrs.entries[1].index == 0xc0011029);
  CHECK(msrs.entries[1].data == 2);
  msrs.header.nmsrs = 256;
  CHECK(call(kvm_fd, KVM_GET_MSRS, &msrs) == -E2BIG);
  msrs.header.nmsrs = 0;
  CHECK(call(kvm_fd, KVM_GET_MSRS, &msrs) == 0);
  CHECK(call(kvm_fd, KVM_GET_MSRS) == -EFAULT);
}

TEST_CASE_METHOD(HostFixture, "no feature of the processor is made up for by KVM") {
  Cpuid table;
  table.header.nent = 2;
  CHECK(call(kvm_fd, KVM_GET_EMULATED_CPUID, &table) == -E2BIG);
  CHECK(table.header.nent == 2);
  table.header.nent = 8;
  CHECK(call(kvm_fd, KVM_GET_EMULATED_CPUID, &table) == 0);
  REQUIRE(table.header.nent == 3);
  CHECK(table.entries[0].eax == 7);
  CHECK(table.entries[1].function == 1);
  CHECK(table.entries[2].function == 7);
  CHECK(table.entries[2].flags == KVM_CPUID_FLAG_SIGNIFCANT_INDEX);
}

TEST_CASE_METHOD(Settings, "the TSC has one rate") {
  CHECK(call(vcpu, KVM_SET_TSC_KHZ, 0ul) == 0);
  CHECK(call(vcpu, KVM_SET_TSC_KHZ, 1000000ul) == 0);
  CHECK(call(vcpu, KVM_SET_TSC_KHZ, 1000250ul) == 0);
  CHECK(call(vcpu, KVM_SET_TSC_KHZ, 1000251ul) == -EINVAL);
  CHECK(call(vcpu, KVM_SET_TSC_KHZ, 500000ul) == -EINVAL);
  CHECK(call(vcpu, KVM_GET_TSC_KHZ) == 1000000);
  CHECK(call(vm, KVM_SET_TSC_KHZ, 0ul) == -EINVAL);  // there is a vCPU
  vm = call(kvm_fd, KVM_CREATE_VM, 0ul);
  CHECK(call(vm, KVM_SET_TSC_KHZ, 0ul) == 0);
  CHECK(call(vcpu, KVM_KVMCLOCK_CTRL) == -EINVAL);
}

TEST_CASE_METHOD(Settings, "machine check banks") {
  CHECK(call(kvm_fd, KVM_CHECK_EXTENSION, static_cast<unsigned long>(KVM_CAP_MCE)) == 32);
  std::uint64_t features = 0;
  CHECK(call(kvm_fd, KVM_X86_GET_MCE_CAP_SUPPORTED, &features) == 0);
  CHECK(features == 0x100);
  CHECK(call(kvm_fd, KVM_X86_GET_MCE_CAP_SUPPORTED) == -EFAULT);
  for (const std::uint64_t bad : {0x100, 0x121, 0xa + 0x200, 0xa + 0x800, 0xa + (1 << 27), 0xa + (1 << 24)}) {
    CHECK(call_with(vcpu, KVM_X86_SETUP_MCE, std::uint64_t{bad}) == -EINVAL);
  }
  CHECK(call(vcpu, KVM_X86_SETUP_MCE) == -EFAULT);
  CHECK(call_with(vcpu, KVM_X86_SETUP_MCE, std::uint64_t{0x102}) == 0);
  CHECK(msr(0x179) == 0x102);
  CHECK(msr(0x17b) == -1);  // MCG_CTL: all ones
  CHECK(msr(0x400) == -1);  // MC0_CTL: all ones
  CHECK(msr(0x407) == 0);   // the last register of bank 1
  Msrs<1> none;
  none.header.nmsrs = 1;
  none.entries[0].index = 0x408;
  CHECK(call(vcpu, KVM_GET_MSRS, &none) == 0);
  CHECK(call_with(vcpu, KVM_X86_SETUP_MCE, std::uint64_t{0x120}) == 0);
  none.entries[0].index = 0x47f;
  CHECK(call(vcpu, KVM_GET_MSRS, &none) == 1);
  none.entries[0].index = 0x480;
  CHECK(call(vcpu, KVM_GET_MSRS, &none) == 0);
}

TEST_CASE_METHOD(HostFixture, "KVM_SET_USER_MEMORY_REGION2 without guest_memfd is its predecessor") {
  CHECK(call(kvm_fd, KVM_CHECK_EXTENSION, 231ul) == 1);
  kvm::MemoryRegion2 region{};
  region.slot = 5;
  region.memory_size = 4096;
  region.userspace_addr = reinterpret_cast<std::uintptr_t>(ram.data());
  CHECK(call(vm, kvm::kSetUserMemoryRegion2, &region) == 0);
  region.flags = 4;  // KVM_MEM_GUEST_MEMFD
  CHECK(call(vm, kvm::kSetUserMemoryRegion2, &region) == -EINVAL);
  region.flags = 0;
  region.memory_size = 0;
  CHECK(call(vm, kvm::kSetUserMemoryRegion2, &region) == 0);
  CHECK(call(vm, kvm::kSetUserMemoryRegion2, &region) == -EINVAL);
  region.memory_size = 4096;
  region.pad1 = 1;
  region.guest_memfd = 77;
  region.pad2[3] = 4;
  CHECK(call(vm, kvm::kSetUserMemoryRegion2, &region) == 0);
  CHECK(call(vm, kvm::kSetUserMemoryRegion2) == -EFAULT);
}

TEST_CASE_METHOD(HostFixture, "KVM_CAP_MAX_VCPU_ID is given once, before vCPUs") {
  const auto limit = [this](std::uint64_t ids) {
    kvm_enable_cap cap{};
    cap.cap = KVM_CAP_MAX_VCPU_ID;
    cap.args[0] = ids;
    return call(vm, KVM_ENABLE_CAP, &cap);
  };
  CHECK(limit(100000) == -EINVAL);
  CHECK(limit(4) == 0);
  CHECK(limit(4) == 0);
  CHECK(limit(5) == -EINVAL);
  CHECK(call(vm, KVM_CREATE_VCPU, 4ul) == -EINVAL);
  CHECK(call(vm, KVM_CREATE_VCPU, 3ul) >= 0);
}

TEST_CASE_METHOD(Settings, "signal masks: errors") {
  SignalMask mask;
  mask.header.len = 8;
  CHECK(call(vcpu, KVM_SET_SIGNAL_MASK, &mask) == 0);
  mask.header.len = 16;
  CHECK(call(vcpu, KVM_SET_SIGNAL_MASK, &mask) == -EINVAL);
  mask.header.len = 4;
  CHECK(call(vcpu, KVM_SET_SIGNAL_MASK, &mask) == -EINVAL);
  CHECK(call(vcpu, KVM_SET_SIGNAL_MASK) == 0);
}

TEST_CASE_METHOD(RunFixture, "a signal that the mask lets in ends KVM_RUN, and stays pending if the thread blocks it") {
  sigset_t blocked;
  sigset_t before;
  sigemptyset(&blocked);
  sigaddset(&blocked, SIGUSR1);
  sigaddset(&blocked, SIGUSR2);
  pthread_sigmask(SIG_BLOCK, &blocked, &before);
  set_guest_code(0, [](Guest& guest, const RunControls&) {
    guest.spend(1);
    return exit_with(ghcb::kExitHlt);
  });
  SignalMask mask;
  mask.header.len = 8;
  const std::uint64_t all_but_one = ~(std::uint64_t{1} << (SIGUSR1 - 1));
  std::memcpy(reinterpret_cast<std::byte*>(&mask) + offsetof(kvm_signal_mask, sigset), &all_but_one, 8);
  REQUIRE(call(vcpus[0], KVM_SET_SIGNAL_MASK, &mask) == 0);
  const pthread_t self = pthread_self();
  std::thread signaller([&] {
    pthread_kill(self, SIGUSR2);  // still masked
    std::this_thread::sleep_for(std::chrono::milliseconds(30));
    pthread_kill(self, SIGUSR1);
  });
  CHECK(run() == -EINTR);
  signaller.join();
  CHECK(state().exit_reason == KVM_EXIT_INTR);
  for (const int signal : {SIGUSR1, SIGUSR2}) {
    sigset_t one;
    sigemptyset(&one);
    sigaddset(&one, signal);
    const timespec now{};
    CHECK(sigtimedwait(&one, nullptr, &now) == signal);
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

TEST_CASE_METHOD(RunFixture, "accesses to the task priority are reported when they are asked for") {
  kvm_tpr_access_ctl control{};
  control.flags = 1;
  CHECK(call(vcpus[0], KVM_TPR_ACCESS_REPORTING, &control) == -EINVAL);
  CHECK(call(vcpus[0], KVM_TPR_ACCESS_REPORTING) == -EFAULT);
  control.flags = 0;
  control.enabled = 1;
  CHECK(call(vcpus[0], KVM_TPR_ACCESS_REPORTING, &control) == 0);
  int step = 0;
  set_guest_code(0, [&](Guest& guest, const RunControls&) {
    switch (step++) {
      case 0:
        return write_mmio(guest, 0xfee00080, std::uint32_t{0x20});
      case 1:
        return ask(guest, ghcb::kExitMmioRead, 0xfee00080, 4);
      case 2:
        return ask(guest, ghcb::kExitMmioRead, 0xfee000f0, 4);
      default:
        return exit_with(ghcb::kExitShutdown);
    }
  });
  CHECK(run() == 0);
  REQUIRE(state().exit_reason == KVM_EXIT_TPR_ACCESS);
  CHECK(state().tpr_access.is_write == 1);
  CHECK(run() == 0);
  REQUIRE(state().exit_reason == KVM_EXIT_TPR_ACCESS);
  CHECK(state().tpr_access.is_write == 0);
  CHECK(run() == 0);
  CHECK(state().exit_reason == KVM_EXIT_SHUTDOWN);
  kvm_vapic_addr address{};
  CHECK(call(vcpus[0], KVM_SET_VAPIC_ADDR, &address) == 0);
  address.vapic_addr = 0x1'0000'0000;  // no memory there
  CHECK(call(vcpus[0], KVM_SET_VAPIC_ADDR, &address) == -EINVAL);
  CHECK(call(vcpus[0], KVM_SET_VAPIC_ADDR) == -EFAULT);
}
