#include "vmm/run/vcpu_exit.hpp"

#include <atomic>
#include <catch2/catch.hpp>
#include <cstring>
#include <string>
#include <thread>
#include <unistd.h>
#include <vector>

#include "base/bytes.hpp"
#include "kvm/handles.hpp"
#include "tests/vmm/scripted_host.hpp"
#include "vmm/run/vcpu_threads.hpp"

using namespace sevisor;
using namespace sevisor::vmm;

namespace {

// Remembers what was written and answers reads with a running number.
class Recorder final : public devices::Device {
 public:
  void read(std::uint64_t, std::span<std::byte> to) override {
    for (std::byte& b : to) b = static_cast<std::byte>(++counter_);
  }
  void write(std::uint64_t offset, std::span<const std::byte> from) override {
    offsets.push_back(offset);
    written.insert(written.end(), from.begin(), from.end());
  }
  std::vector<std::byte> written;
  std::vector<std::uint64_t> offsets;

 private:
  unsigned counter_ = 0;
};

struct Fixture {
  Fixture() {
    ports.add(0x3f8, 8, device, "recorder");
    mmio.add(0x1000, 0x100, device, "recorder");
  }
  kvm_run& run() { return *reinterpret_cast<kvm_run*>(area); }
  std::byte* data() { return reinterpret_cast<std::byte*>(area) + kvm::kPioDataOffset; }
  std::optional<Outcome> handle() { return handle_exit(run(), sizeof area, 2, {ports, mmio}); }

  void port_exit(int direction, unsigned size, std::uint16_t port, std::uint32_t count) {
    run().exit_reason = KVM_EXIT_IO;
    run().io.direction = static_cast<__u8>(direction);
    run().io.size = static_cast<__u8>(size);
    run().io.port = port;
    run().io.count = count;
    run().io.data_offset = kvm::kPioDataOffset;
  }

  Recorder device;
  devices::Bus ports{"port", devices::kPortBusSize};
  devices::Bus mmio{"MMIO", devices::kMmioBusSize};
  alignas(4096) unsigned char area[kvm::kVcpuMmapSize] = {};
};

bool has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

}  // namespace

TEST_CASE_METHOD(Fixture, "port accesses reach the device, single and repeated") {
  port_exit(KVM_EXIT_IO_OUT, 1, 0x3f9, 1);
  data()[0] = std::byte{0x41};
  CHECK_FALSE(handle());
  CHECK(device.written == std::vector<std::byte>{std::byte{0x41}});
  CHECK(device.offsets == std::vector<std::uint64_t>{1});

  port_exit(KVM_EXIT_IO_OUT, 1, 0x3f8, 3);
  std::memcpy(data(), "xyz", 3);
  CHECK_FALSE(handle());
  CHECK(device.written.size() == 4);

  port_exit(KVM_EXIT_IO_IN, 2, 0x3f8, 2);
  CHECK_FALSE(handle());
  CHECK(data()[0] == std::byte{1});
  CHECK(data()[3] == std::byte{4});
}

TEST_CASE_METHOD(Fixture, "an absent port reads as all ones") {
  port_exit(KVM_EXIT_IO_IN, 4, 0x1234, 1);
  CHECK_FALSE(handle());
  for (int i = 0; i < 4; ++i) CHECK(data()[i] == std::byte{0xff});
}

TEST_CASE_METHOD(Fixture, "MMIO reaches the device, and reads as all ones where none is") {
  run().exit_reason = KVM_EXIT_MMIO;
  run().mmio.phys_addr = 0x1004;
  run().mmio.len = 4;
  run().mmio.is_write = 1;
  CHECK_FALSE(handle());
  CHECK(device.written.size() == 4);
  run().mmio.phys_addr = 0xfed40000;
  run().mmio.is_write = 0;
  CHECK_FALSE(handle());
  CHECK(run().mmio.data[3] == 0xff);
}

TEST_CASE_METHOD(Fixture, "accesses out of the run area's bounds end the run instead of the process") {
  port_exit(KVM_EXIT_IO_OUT, 4, 0x3f8, 0xffffffff);
  REQUIRE(handle());
  CHECK(handle()->code == 33);
  port_exit(KVM_EXIT_IO_OUT, 1, 0x3f8, 1);
  run().io.data_offset = ~std::uint64_t{0};
  REQUIRE(handle());
  port_exit(KVM_EXIT_IO_OUT, 0, 0x3f8, 1);
  REQUIRE(handle());
  run().exit_reason = KVM_EXIT_MMIO;
  run().mmio.len = 9;
  REQUIRE(handle());
  CHECK(device.written.empty());
}

TEST_CASE_METHOD(Fixture, "the end of an interrupt is for the IOAPIC, if it is this program's") {
  run().exit_reason = KVM_EXIT_IOAPIC_EOI;
  run().eoi.vector = 0x41;
  REQUIRE(handle());
  CHECK(handle()->code == 33);

  int sent = 0;
  devices::IoApic chip({.send = [&sent](const interrupts::Msi&) { return ++sent != 0; },
                        .messages_changed = [](const devices::IoApic::PinMessages&) {}});
  const auto write = [&chip](std::uint64_t offset, std::uint32_t value) {
    chip.write(offset, std::as_bytes(std::span(&value, 1)));
  };
  write(0, 0x10 + 2 * 9);
  write(0x10, 0x8041);  // level-triggered
  chip.set_line(9, true);
  CHECK(sent == 1);
  CHECK_FALSE(handle_exit(run(), sizeof area, 2, {.ports = ports, .mmio = mmio, .io_apic = &chip}));
  CHECK(sent == 2);
}

TEST_CASE_METHOD(Fixture, "SEV termination is decoded") {
  run().exit_reason = KVM_EXIT_SYSTEM_EVENT;
  run().system_event.type = KVM_SYSTEM_EVENT_SEV_TERM;
  run().system_event.ndata = 1;
  run().system_event.data[0] = 0x100 | 1U << 16;
  REQUIRE(handle());
  CHECK(handle()->code == 37);
  CHECK(has(handle()->reason, "vCPU 2"));
  CHECK(has(handle()->reason, "reason set 0, code 1: the GHCB protocol version is not supported"));
  CHECK(has(sev_termination_text(0x100 | 13U << 16 | 1U << 12), "reason set 1, code 13"));
  // docs/firmware.md has the list.
  CHECK(has(sev_termination_text(0x100 | 26U << 16 | 1U << 12), "the kernel is not the one that was measured"));
  CHECK(has(sev_termination_text(0x100 | 200U << 16 | 1U << 12), "code 200: defined by the guest"));
  CHECK(has(sev_termination_text(0x100 | 26U << 16 | 2U << 12), "code 26: defined by the guest"));
  CHECK(has(sev_termination_text(0x100), "no particular reason"));
  CHECK(has(sev_termination_text(0x100 | 4U << 16 | 1U << 12), "CPUID values are not consistent, if it is Linux"));
  CHECK(has(sev_termination_text(0x100 | 200U << 16), "not defined by the GHCB specification"));
  CHECK(has(sev_termination_text(0x809000), "0x809000"));
  CHECK(has(sev_termination_text(0x2013), "only SEV-SNP guests"));
}

TEST_CASE("the reason of a termination through the GHCB is read there") {
  struct Memory final : devices::GuestDma {
    bool read(Gpa at, std::span<std::byte> to) override {
      if (at.value != 0x809000 + 0x398 || to.size() != 16) return false;
      store(to.data(), std::uint64_t{0x1 | 0x42 << 4});  // SW_EXITINFO1: set 3:0, code 11:4
      store(&to[8], std::uint64_t{0xabcd});
      return true;
    }
    bool write(Gpa, std::span<const std::byte>) override { return false; }
  } memory;
  const std::string text = sev_termination_text(0x809000, &memory);
  CHECK(has(text, "reason set 1, code 66"));
  CHECK(has(text, "0xabcd"));
  CHECK(has(sev_termination_text(0x80a000, &memory), "cannot be read"));
}

TEST_CASE("a KVM_RUN that fails says what may be behind it") {
  CHECK(has(run_failure_text(EINVAL), "#VC"));
  CHECK(has(run_failure_text(EINVAL), "triple fault"));  // Linux 6.1 svm.c shutdown_interception()
  CHECK(has(run_failure_text(EFAULT), "scratch area"));
  CHECK(has(run_failure_text(EIO), "KVM_RUN failed"));
}

TEST_CASE_METHOD(Fixture, "crashes carry what the host said") {
  run().exit_reason = KVM_EXIT_SHUTDOWN;
  CHECK(handle()->code == 33);
  CHECK(has(handle()->reason, "triple fault"));

  run().exit_reason = KVM_EXIT_INTERNAL_ERROR;
  run().internal.suberror = KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON;
  run().internal.ndata = 2;
  run().internal.data[0] = 0x6e;
  run().internal.data[1] = 3;
  CHECK(handle()->code == 33);
  CHECK(has(handle()->reason, "data 0x6e 0x3"));
  run().internal.ndata = 1000;  // more than there is room for
  CHECK(handle()->code == 33);

  run().exit_reason = KVM_EXIT_FAIL_ENTRY;
  run().fail_entry.hardware_entry_failure_reason = 0xffffffff;
  run().fail_entry.cpu = 5;
  CHECK(handle()->code == 33);
  CHECK(has(handle()->reason, "0xffffffff on CPU 5"));
}

TEST_CASE_METHOD(Fixture, "no exit ends the run with 0, known or not") {
  for (std::uint32_t reason = 0; reason < 64; ++reason) {
    std::memset(area, 0, sizeof area);
    run().exit_reason = reason;
    run().io.size = 1;
    run().io.data_offset = kvm::kPioDataOffset;
    const std::optional<Outcome> outcome = handle();
    CAPTURE(reason);
    if (outcome) CHECK(outcome->code != 0);
    if (reason == KVM_EXIT_HLT || reason == KVM_EXIT_UNKNOWN || reason == 63) {
      REQUIRE(outcome);
      CHECK(has(outcome->reason, std::to_string(reason)));
    }
  }
}

TEST_CASE_METHOD(Fixture, "a vCPU runs on through interruptions and stops at what it cannot go on from") {
  test::ScriptedHost host;
  const kvm::Vm vm = kvm::Kvm::open(host).create_vm();
  const kvm::Vcpu vcpu = vm.create_vcpu(0);
  int runs = 0;
  host.answers[KVM_RUN] = [&](void*) {
    ++runs;
    if (runs < 3) return runs == 1 ? -EINTR : -EAGAIN;
    if (runs == 3) {
      vcpu.state().exit_reason = KVM_EXIT_INTR;
      return 0;
    }
    return -EINVAL;
  };
  RunState state;
  run_vcpu(vcpu, {ports, mmio}, state);
  CHECK(runs == 4);
  REQUIRE(state.outcome());
  CHECK(state.outcome()->code == 33);
  CHECK(has(state.outcome()->reason, "EINVAL"));
}

TEST_CASE("the first outcome of a run counts") {
  RunState state;
  CHECK_FALSE(state.ended());
  state.end({ExitCode::kResetAsked, "first"});
  state.end({ExitCode::kPoweredOff, "second"});
  CHECK(state.ended());
  CHECK(state.outcome()->code == 32);
}

TEST_CASE_METHOD(Fixture, "vCPUs inside KVM_RUN are taken out of it when the run ends") {
  test::ScriptedHost host;
  const kvm::Vm vm = kvm::Kvm::open(host).create_vm();
  std::vector<kvm::Vcpu> vcpus;
  vcpus.push_back(vm.create_vcpu(0));
  std::atomic<bool> inside = false;
  host.answers[KVM_RUN] = [&](void*) {
    inside = true;
    // As the kernel: a signal ends the wait, and the flag makes up for one that came too early.
    while (__atomic_load_n(&host.run_area[1], __ATOMIC_SEQ_CST) == 0) ::usleep(100'000);
    return -EINTR;
  };
  RunState state;
  VcpuThreads threads(vcpus, {ports, mmio}, state);
  while (!inside) std::this_thread::yield();
  state.end({ExitCode::kTimedOut, "test"});
  threads.stop();
  CHECK(state.outcome()->code == 36);
}

TEST_CASE_METHOD(Fixture, "hypercalls about shared pages are answered, others refused") {
  const auto call = [&](std::uint64_t number, std::uint64_t address, std::uint64_t pages) {
    run().exit_reason = KVM_EXIT_HYPERCALL;
    run().hypercall.nr = number;
    run().hypercall.args[0] = address;
    run().hypercall.args[1] = pages;
    run().hypercall.args[2] = 0x10;
    CHECK_FALSE(handle());
    return static_cast<std::int64_t>(run().hypercall.ret);
  };
  CHECK(call(12, 0x1000, 16) == 0);
  CHECK(call(12, 0x1001, 16) == -22);
  CHECK(call(12, 0x1000, 0) == -22);
  CHECK(call(12, 0x1000, UINT64_MAX) == -22);
  CHECK(call(11, 0x1000, 1) == -1000);
}

TEST_CASE_METHOD(Fixture, "an exit that nobody asked for is reported with its data") {
  const auto reason = [&](std::uint32_t number) {
    run().exit_reason = number;
    const auto outcome = handle();
    REQUIRE(outcome);
    CHECK(outcome->code == 33);
    return outcome->reason;
  };
  run().hw.hardware_exit_reason = 0x4d;
  CHECK(has(reason(KVM_EXIT_UNKNOWN), "hardware exit reason 0x4d"));
  run().msr.index = 0xc0010130;
  run().msr.data = 0x42;
  CHECK(has(reason(KVM_EXIT_X86_WRMSR), "MSR 0xc0010130, data 0x42"));
  CHECK(has(reason(KVM_EXIT_HLT), "LAPIC"));
}
