// The VMSA lies in the kernel's memory, where no program reaches it. These tests reach into the emulated kernel, and do
// what a hostile one could: VMRUN of a VMSA whose checksum is not that of the last #VMEXIT fails with VMEXIT_INVALID
// (APM vol. 2 section 15.35.8), which KVM hands on as KVM_EXIT_FAIL_ENTRY with the exit code (Linux
// arch/x86/kvm/svm/svm.c svm_handle_exit()).
#include <algorithm>
#include <array>
#include <catch2/catch.hpp>
#include <vector>

#include "emulator/kvm/kvm_device.hpp"
#include "emulator/kvm/platform.hpp"
#include "emulator/kvm/sev_device.hpp"
#include "emulator/kvm/vcpu.hpp"
#include "ghcb/exit_code.hpp"
#include "tests/emulator_kvm/fake_cpu.hpp"

using namespace sevisor;
using namespace sevisor::test;

namespace {

struct Kernel {
  std::shared_ptr<emulator::Platform> platform =
      std::make_shared<emulator::Platform>(emulator::EmulatedHostOptions{.slice = 1000});
  int kvm = platform->descriptors().add(std::make_shared<emulator::KvmDevice>(platform));
  int sev = platform->descriptors().add(std::make_shared<emulator::SevDevice>(platform, true));
  int vm = call(kvm, KVM_CREATE_VM, nullptr);
  int vcpu_fd = -1;
  std::uint64_t seen = 0;  // RBX at each entry

  Kernel() {
    REQUIRE(command(KVM_SEV_ES_INIT, nullptr) == 0);
    vcpu_fd = call(vm, KVM_CREATE_VCPU, nullptr);
    kvm_sev_launch_start start{};
    start.policy = 5;
    REQUIRE(command(KVM_SEV_LAUNCH_START, &start) == 0);
    REQUIRE(command(KVM_SEV_LAUNCH_UPDATE_VMSA, nullptr) == 0);
    set_guest_code(0, [this](Guest& guest, const emulator::RunControls&) {
      seen = guest.state.rbx++;
      emulator::CpuExit exit;
      exit.code = ghcb::kExitShutdown;
      return exit;
    });
  }
  ~Kernel() { platform->descriptors().clear(); }
  Kernel(const Kernel&) = delete;
  Kernel& operator=(const Kernel&) = delete;

  int call(int fd, unsigned long request, void* argument) const {
    return platform->descriptors().find(fd)->ioctl(request, argument);
  }
  int command(std::uint32_t id, void* data) const {
    kvm_sev_cmd command{};
    command.id = id;
    command.data = reinterpret_cast<std::uintptr_t>(data);
    command.sev_fd = static_cast<std::uint32_t>(sev);
    return call(vm, KVM_MEMORY_ENCRYPT_OP, &command);
  }
  [[nodiscard]] emulator::Vcpu& vcpu() const {
    return std::dynamic_pointer_cast<emulator::VcpuFile>(platform->descriptors().find(vcpu_fd))->vcpu();
  }
  [[nodiscard]] std::span<std::byte> vmsa() const { return vcpu().stored_vmsa_page(); }
  // The exit that KVM_RUN tells of.
  [[nodiscard]] const kvm_run& run() const {
    REQUIRE(call(vcpu_fd, KVM_RUN, nullptr) == 0);
    return *reinterpret_cast<const kvm_run*>(vcpu().run_area()->data());
  }
  void must_be_refused() const {
    const kvm_run& exit = run();
    CHECK(exit.exit_reason == KVM_EXIT_FAIL_ENTRY);
    CHECK(static_cast<std::uint32_t>(exit.fail_entry.hardware_entry_failure_reason) == 0xffffffff);  // VMEXIT_INVALID
  }
};

}  // namespace

TEST_CASE("a VMSA that was changed is not run, until what was there is there again") {
  Kernel kernel;
  const bool before_first_run = GENERATE(true, false);
  if (!before_first_run) CHECK(kernel.run().exit_reason == KVM_EXIT_SHUTDOWN);
  // Any byte: reserved space is covered as the registers are.
  for (const std::size_t at : {std::size_t{0}, std::size_t{0x178}, std::size_t{0x400}, std::size_t{4095}}) {
    kernel.vmsa()[at] ^= std::byte{1};
    kernel.must_be_refused();
    kernel.vmsa()[at] ^= std::byte{1};
  }
  CHECK(kernel.run().exit_reason == KVM_EXIT_SHUTDOWN);
  CHECK(kernel.seen == (before_first_run ? 0 : 1));
}

TEST_CASE("an old VMSA is not run again") {
  Kernel kernel;
  CHECK(kernel.run().exit_reason == KVM_EXIT_SHUTDOWN);
  const std::vector<std::byte> old(kernel.vmsa().begin(), kernel.vmsa().end());
  CHECK(kernel.run().exit_reason == KVM_EXIT_SHUTDOWN);
  const std::vector<std::byte> present(kernel.vmsa().begin(), kernel.vmsa().end());
  CHECK(old != present);
  std::ranges::copy(old, kernel.vmsa().begin());
  kernel.must_be_refused();
  std::ranges::copy(present, kernel.vmsa().begin());
  CHECK(kernel.run().exit_reason == KVM_EXIT_SHUTDOWN);
  CHECK(kernel.seen == 2);
}

TEST_CASE("a VMSA that the host writes in clear is not run") {
  Kernel kernel;
  CHECK(kernel.run().exit_reason == KVM_EXIT_SHUTDOWN);
  std::ranges::fill(kernel.vmsa(), std::byte{0});
  kernel.must_be_refused();
}

TEST_CASE("a VMSA that was changed is not run in the VM that its context moves to") {
  Kernel kernel;
  CHECK(kernel.run().exit_reason == KVM_EXIT_SHUTDOWN);
  kernel.vmsa()[0x178] ^= std::byte{1};
  const int source = kernel.vm;
  const int destination = kernel.call(kernel.kvm, KVM_CREATE_VM, nullptr);
  kernel.vcpu_fd = kernel.call(destination, KVM_CREATE_VCPU, nullptr);
  kvm_enable_cap cap{};
  cap.cap = KVM_CAP_VM_MOVE_ENC_CONTEXT_FROM;
  cap.args[0] = static_cast<std::uint64_t>(source);
  REQUIRE(kernel.call(destination, KVM_ENABLE_CAP, &cap) == 0);
  kernel.must_be_refused();
  kernel.vmsa()[0x178] ^= std::byte{1};
  CHECK(kernel.run().exit_reason == KVM_EXIT_SHUTDOWN);
  CHECK(kernel.seen == 1);
}
