// KVM_RUN, exit by exit, with a C++ function as the guest.
#include <atomic>
#include <chrono>
#include <csignal>
#include <pthread.h>
#include <string>
#include <thread>

#include "base/bytes.hpp"
#include "ghcb/event.hpp"
#include "ghcb/ioio.hpp"
#include "tests/emulator_kvm/run_fixture.hpp"

using namespace sevisor;
using namespace sevisor::test;
using emulator::CpuExit;
using emulator::RunControls;

TEST_CASE_METHOD(HostFixture, "a vCPU that is not protected cannot be entered") {
  REQUIRE(sev(KVM_SEV_ES_INIT) == 0);
  const int vcpu = call(vm, KVM_CREATE_VCPU, 0ul);
  auto* run = static_cast<kvm_run*>(host->mmap(vcpu, 12288));
  CHECK(host->mmap(vcpu, 12289) == nullptr);
  CHECK(host->mmap(vm, 4096) == nullptr);
  CHECK(call(vcpu, KVM_RUN) == 0);
  CHECK(run->exit_reason == KVM_EXIT_FAIL_ENTRY);
  CHECK(run->fail_entry.hardware_entry_failure_reason == 0xffffffff);
  CHECK(host->close(vcpu) == 0);
  CHECK(run->exit_reason == KVM_EXIT_FAIL_ENTRY);  // the mapping outlives the descriptor
  CHECK(host->munmap(run, 12288) == 0);
}

TEST_CASE_METHOD(RunFixture, "the processor starts from the VMSA and the preset GHCB MSR") {
  std::uint64_t rip = 0;
  std::uint64_t msr = 0;
  set_guest_code(0, [&](Guest& guest, const RunControls&) {
    rip = guest.state.rip;
    msr = guest.ghcb_msr;
    return exit_with(ghcb::kExitShutdown);
  });
  CHECK(run() == 0);
  CHECK(state().exit_reason == KVM_EXIT_SHUTDOWN);
  CHECK(rip == 0xfff0);
  CHECK(msr == 0x0001'0001'3300'0001);
}

TEST_CASE_METHOD(RunFixture, "port output and input through the GHCB") {
  int step = 0;
  std::uint64_t read = 0;
  set_guest_code(0, [&](Guest& guest, const RunControls&) {
    switch (step++) {
      case 0:
        return ask(guest, ghcb::kExitIoio, encode(ghcb::IoAccess{.port = 0x3f8}), 0, 'A');
      case 1:
        return ask(guest, ghcb::kExitIoio, encode(ghcb::IoAccess{.port = 0x3fd, .in = true}), 0);
      default:
        read = page_of(guest).rax;
        return exit_with(ghcb::kExitShutdown);
    }
  });
  CHECK(run() == 0);
  CHECK(state().exit_reason == KVM_EXIT_IO);
  CHECK(state().io.direction == KVM_EXIT_IO_OUT);
  CHECK(state().io.port == 0x3f8);
  CHECK(state().io.size == 1);
  CHECK(state().io.count == 1);
  CHECK(state().io.data_offset == 4096);
  CHECK(*data() == std::byte{'A'});
  CHECK(run() == 0);
  CHECK(state().io.direction == KVM_EXIT_IO_IN);
  *data() = std::byte{0x60};
  CHECK(run() == 0);
  CHECK(state().exit_reason == KVM_EXIT_SHUTDOWN);
  CHECK(read == 0x60);
}

TEST_CASE_METHOD(RunFixture, "the answer of user space is taken even if KVM_RUN then leaves at once") {
  bool asked = false;
  set_guest_code(0, [&](Guest& guest, const RunControls&) {
    if (std::exchange(asked, true)) return exit_with(ghcb::kExitShutdown);
    return ask(guest, ghcb::kExitIoio, encode(ghcb::IoAccess{.port = 0x3fd, .in = true}), 0);
  });
  CHECK(run() == 0);
  *data() = std::byte{0x33};
  state().immediate_exit = 1;
  CHECK(run() == -EINTR);
  CHECK(state().exit_reason == KVM_EXIT_IO);
  CHECK(load<std::uint8_t>(ram.data() + kGhcb + 0x1f8) == 0x33);
  state().immediate_exit = 0;
  CHECK(run() == 0);
  CHECK(state().exit_reason == KVM_EXIT_SHUTDOWN);
}

TEST_CASE_METHOD(RunFixture, "memory-mapped registers: the kernel's own, and user space's") {
  int step = 0;
  std::uint32_t version = 0;
  std::uint32_t absent = 0;
  set_guest_code(0, [&](Guest& guest, const RunControls&) {
    switch (step++) {
      case 0:
        return ask(guest, ghcb::kExitMmioRead, 0xfee00030, 4);
      case 1:
        version = load<std::uint32_t>(page_of(guest).shared_buffer);
        return ask(guest, ghcb::kExitMmioRead, 0xfed40000, 4);
      case 2:
        absent = load<std::uint32_t>(page_of(guest).shared_buffer);
        store(page_of(guest).shared_buffer, std::uint16_t{0x1234});
        return ask(guest, ghcb::kExitMmioWrite, 0xd0000000, 2);
      default:
        return exit_with(ghcb::kExitShutdown);
    }
  });
  CHECK(run() == 0);
  CHECK(state().exit_reason == KVM_EXIT_MMIO);
  CHECK((version & 0xff) >= 0x10);
  CHECK(state().mmio.phys_addr == 0xfed40000);
  CHECK(state().mmio.len == 4);
  CHECK(state().mmio.is_write == 0);
  std::memset(state().mmio.data, 0xff, 8);
  CHECK(run() == 0);
  CHECK(absent == 0xffffffff);
  CHECK(state().mmio.is_write == 1);
  CHECK(state().mmio.len == 2);
  CHECK(load<std::uint16_t>(state().mmio.data) == 0x1234);
}

TEST_CASE_METHOD(RunFixture, "how a guest ends") {
  CpuExit exit;
  std::uint64_t msr = 0;
  set_guest_code(0, [&](Guest& guest, const RunControls&) {
    if (msr != 0) guest.ghcb_msr = msr;
    return exit;
  });
  exit.code = ghcb::kExitInvalid;
  CHECK(run() == 0);
  CHECK(state().exit_reason == KVM_EXIT_FAIL_ENTRY);
  exit.code = 0x7a;
  CHECK(run() == 0);
  CHECK(state().exit_reason == KVM_EXIT_INTERNAL_ERROR);
  CHECK(state().internal.suberror == 4);
  CHECK(state().internal.data[0] == 0x7a);
  exit.code = ghcb::kExitVmgexit;
  msr = 0x21100;
  CHECK(run() == 0);
  CHECK(state().exit_reason == KVM_EXIT_SYSTEM_EVENT);
  CHECK(state().system_event.type == 6);
  CHECK(state().system_event.ndata == 1);
  CHECK(state().system_event.data[0] == 0x21100);
  exit.unimplemented = "an instruction";
  CHECK(run() == 0);
  CHECK(state().exit_reason == KVM_EXIT_INTERNAL_ERROR);
  CHECK(state().internal.suberror == 1);
}

TEST_CASE_METHOD(RunFixture, "a #VC that the guest cannot handle fails KVM_RUN") {
  set_guest_code(0, [&](Guest& guest, const RunControls&) { return ask(guest, ghcb::kExitUnsupportedEvent, 0x72, 0); });
  CHECK(run() == -EINVAL);
}

TEST_CASE_METHOD(RunFixture, "an interrupt waits for the guest to allow it, and is then injected") {
  // IOAPIC pin 4: vector 0x31, edge, to APIC 0. The local APIC is enabled through its SVR.
  int step = 0;
  std::vector<RunControls> seen;
  set_guest_code(0, [&](Guest& guest, const RunControls& controls) {
    guest.spend(1);
    const auto mmio = [&](std::uint64_t gpa, std::uint32_t value) {
      store(page_of(guest).shared_buffer, value);
      return ask(guest, ghcb::kExitMmioWrite, gpa, 4);
    };
    switch (step++) {
      case 0:
        return mmio(0xfee000f0, 0x1ff);
      case 1:
        return mmio(0xfec00000, 0x10 + 2 * 4);
      case 2:
        return mmio(0xfec00010, 0x31);
      case 3:  // the PIC, whose output the BSP takes at first, is masked
        return ask(guest, ghcb::kExitIoio, encode(ghcb::IoAccess{.port = 0x21}), 0, 0xff);
      case 4:
        return ask(guest, ghcb::kExitIoio, encode(ghcb::IoAccess{.port = 0x3f8}), 0, 0);
      case 5:  // interrupts are off: a window is asked for
        seen.push_back(controls);
        guest.interrupts = true;
        return exit_with(ghcb::kExitVintr);
      case 6:
        seen.push_back(controls);
        return exit_with(ghcb::kExitHlt);
      default:
        return exit_with(ghcb::kExitShutdown);
    }
  });
  CHECK(run() == 0);
  REQUIRE(state().exit_reason == KVM_EXIT_IO);
  REQUIRE(call_with(vm, KVM_IRQ_LINE, kvm_irq_level{{4}, 1}) == 0);
  state().immediate_exit = 0;
  std::thread waker([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    (void)call_with(vm, KVM_IRQ_LINE, kvm_irq_level{{4}, 0});
    // EOI never came, but a higher vector wakes the halted vCPU too.
    (void)call_with(
        vm, KVM_SIGNAL_MSI,
        kvm_msi{.address_lo = 0xfee00000, .address_hi = 0, .data = 0x51, .flags = 0, .devid = 0, .pad = {}});
  });
  CHECK(run() == 0);
  waker.join();
  CHECK(state().exit_reason == KVM_EXIT_SHUTDOWN);
  REQUIRE(seen.size() == 2);
  CHECK(seen[0].event_injection == 0);
  CHECK(seen[0].interrupt_window);
  CHECK(seen[1].event_injection == 0x80000031);
  CHECK_FALSE(seen[1].interrupt_window);
}

TEST_CASE_METHOD(RunFixture, "HLT goes to the next timer event in virtual time") {
  int step = 0;
  std::vector<std::uint64_t> times;
  set_guest_code(0, [&](Guest& guest, const RunControls& controls) {
    times.push_back(guest.clock.now);
    guest.spend(1);
    const auto mmio = [&](std::uint64_t gpa, std::uint32_t value) {
      store(page_of(guest).shared_buffer, value);
      return ask(guest, ghcb::kExitMmioWrite, gpa, 4);
    };
    switch (step++) {
      case 0:
        return mmio(0xfee000f0, 0x1ff);
      case 1:
        return mmio(0xfee003e0, 0xb);  // divide by 1
      case 2:
        return mmio(0xfee00320, 0x40);  // one-shot, vector 0x40
      case 3:
        return mmio(0xfee00380, 5'000'000);  // 5 ms
      case 4:
        guest.interrupts = true;
        return exit_with(ghcb::kExitHlt);
      default:
        CHECK(controls.event_injection == 0x80000040);
        return exit_with(ghcb::kExitShutdown);
    }
  });
  const auto before = std::chrono::steady_clock::now();
  CHECK(run() == 0);
  CHECK(state().exit_reason == KVM_EXIT_SHUTDOWN);
  REQUIRE(times.size() == 6);
  CHECK(times[5] >= times[4] + 4'900'000);
  CHECK(times[5] <= times[4] + 5'100'000);
  CHECK(std::chrono::steady_clock::now() - before < std::chrono::seconds(1));
}

TEST_CASE_METHOD(RunFixture, "a slice ends at the timer's deadline") {
  int step = 0;
  std::uint64_t limit = 0;
  set_guest_code(0, [&](Guest& guest, const RunControls& controls) {
    guest.spend(1);
    const auto mmio = [&](std::uint64_t gpa, std::uint32_t value) {
      store(page_of(guest).shared_buffer, value);
      return ask(guest, ghcb::kExitMmioWrite, gpa, 4);
    };
    switch (step++) {
      case 0:
        return mmio(0xfee000f0, 0x1ff);
      case 1:
        return mmio(0xfee003e0, 0xb);
      case 2:
        return mmio(0xfee00320, 0x40);
      case 3:
        return mmio(0xfee00380, 300);
      default:
        limit = controls.instruction_limit;
        return exit_with(ghcb::kExitShutdown);
    }
  });
  CHECK(run() == 0);
  CHECK(limit == 300);
}

TEST_CASE_METHOD(RunFixture, "an NMI is masked until the guest says it is done") {
  int injected = 0;
  int step = 0;
  set_guest_code(0, [&](Guest& guest, const RunControls& controls) {
    guest.spend(1);
    if (controls.event_injection == 0x80000202) ++injected;
    switch (step++) {
      case 0:
        CHECK(injected == 1);
        return ask(guest, ghcb::kExitIoio, encode(ghcb::IoAccess{.port = 0x80}), 0);  // a second one comes
      case 1:
        CHECK(injected == 1);
        return ask(guest, ghcb::kExitNmiComplete, 0, 0);
      case 2:
        CHECK(injected == 2);
        return exit_with(ghcb::kExitShutdown);
      default:
        return exit_with(ghcb::kExitShutdown);
    }
  });
  CHECK(call(vcpus[0], KVM_NMI) == 0);
  CHECK(run() == 0);
  REQUIRE(state().exit_reason == KVM_EXIT_IO);
  CHECK(call(vcpus[0], KVM_NMI) == 0);
  CHECK(run() == 0);
  CHECK(injected == 2);
}

TEST_CASE_METHOD(RunFixture, "an event whose delivery was interrupted is injected again, but not #VC") {
  int step = 0;
  std::vector<std::uint64_t> injected;
  set_guest_code(0, [&](Guest& guest, const RunControls& controls) {
    guest.spend(1);
    injected.push_back(controls.event_injection);
    CpuExit exit = exit_with(ghcb::kExitIntr);
    switch (step++) {
      case 0:
        exit.interrupted_event = ghcb::encode(ghcb::Event{.vector = 0x41, .type = ghcb::EventType::kExternal});
        return exit;
      case 1:
        exit.interrupted_event = ghcb::encode(ghcb::Event{.vector = 29, .has_error_code = true, .error_code = 0x72});
        return exit;
      case 2:
        exit.interrupted_event = ghcb::encode(ghcb::Event{.vector = 0x80, .type = ghcb::EventType::kSoftware});
        return exit;
      default:
        return exit_with(ghcb::kExitShutdown);
    }
  });
  CHECK(run() == 0);
  CHECK(injected == std::vector<std::uint64_t>{0, 0x80000041, 0, 0});
}

TEST_CASE_METHOD(RunFixture, "a guest that never exits is stopped by immediate_exit and by a signal") {
  std::atomic<bool> running = false;
  set_guest_code(0, [&](Guest& guest, const RunControls& controls) {
    running = true;
    guest.spend(controls.instruction_limit);
    return exit_with(ghcb::kExitIntr);
  });
  std::thread stopper([&] {
    while (!running) std::this_thread::yield();
    __atomic_store_n(&state().immediate_exit, 1, __ATOMIC_SEQ_CST);
  });
  CHECK(run() == -EINTR);
  stopper.join();
  state().immediate_exit = 0;

  static std::atomic<int> handled;
  handled = 0;
  struct sigaction action {};
  struct sigaction old {};
  action.sa_handler = [](int) { ++handled; };
  sigaction(SIGUSR1, &action, &old);
  running = false;
  const pthread_t self = pthread_self();
  std::thread signaller([&] {
    while (!running) std::this_thread::yield();
    pthread_kill(self, SIGUSR1);
  });
  CHECK(run() == -EINTR);
  signaller.join();
  CHECK(handled == 1);
  CHECK(state().exit_reason == KVM_EXIT_INTR);

  // And while it waits for an interrupt that never comes.
  set_guest_code(0, nullptr);
  sigaction(SIGUSR1, &old, nullptr);
}

TEST_CASE_METHOD(RunFixture, "a halted vCPU without a timer blocks, and a signal ends that") {
  static std::atomic<int> handled;
  handled = 0;
  struct sigaction action {};
  struct sigaction old {};
  action.sa_handler = [](int) { ++handled; };
  sigaction(SIGUSR1, &action, &old);
  set_guest_code(0, [&](Guest& guest, const RunControls&) {
    guest.spend(1);
    return exit_with(ghcb::kExitHlt);
  });
  const pthread_t self = pthread_self();
  std::thread signaller([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(30));
    pthread_kill(self, SIGUSR1);
  });
  CHECK(run() == -EINTR);
  signaller.join();
  CHECK(handled == 1);
  sigaction(SIGUSR1, &old, nullptr);
}

TEST_CASE_METHOD(RunFixture, "EFER as user space sees it has LMA once paging is on") {
  // Linux svm.c efer_trap(), svm_set_cr0(): the write of EFER that the guest traps with never has LMA in it.
  constexpr std::uint64_t kLme = 0x100;
  constexpr std::uint64_t kLma = 0x400;
  int step = 0;
  set_guest_code(0, [&](Guest&, const RunControls&) {
    switch (step++) {
      case 0:
        return exit_with(ghcb::kExitEferWriteTrap, kLme | 0x1000);
      case 1:
        return exit_with(ghcb::kExitCr0WriteTrap, 0x80000011);
      case 3:
        return exit_with(ghcb::kExitEferWriteTrap, kLme | 0x801);
      case 5:
        return exit_with(ghcb::kExitCr0WriteTrap, 0x11);
      default:
        return exit_with(ghcb::kExitShutdown);
    }
  });
  kvm_sregs sregs{};
  CHECK(run() == 0);
  REQUIRE(call(vcpus[0], KVM_GET_SREGS, &sregs) == 0);
  CHECK(sregs.efer == (kLme | kLma));
  CHECK(run() == 0);
  REQUIRE(call(vcpus[0], KVM_GET_SREGS, &sregs) == 0);
  CHECK(sregs.efer == (kLme | kLma | 0x801));
  CHECK(run() == 0);
  REQUIRE(call(vcpus[0], KVM_GET_SREGS, &sregs) == 0);
  CHECK(sregs.efer == (kLme | 0x801));
}

TEST_CASE_METHOD(RunFixture, "VCPU_EVENTS show and set the interrupt shadow") {
  // Linux svm.c svm_get_interrupt_shadow(): KVM_X86_SHADOW_INT_MOV_SS | KVM_X86_SHADOW_INT_STI for the VMCB's one bit.
  std::vector<bool> shadows;
  set_guest_code(0, [&](Guest& guest, const RunControls&) {
    shadows.push_back(std::exchange(guest.shadow, shadows.empty()));
    return exit_with(ghcb::kExitShutdown);
  });
  kvm_vcpu_events events{};
  CHECK(run() == 0);
  REQUIRE(call(vcpus[0], KVM_GET_VCPU_EVENTS, &events) == 0);
  CHECK((events.flags & KVM_VCPUEVENT_VALID_SHADOW) != 0);
  CHECK(events.interrupt.shadow == 3);
  CHECK(run() == 0);
  REQUIRE(call(vcpus[0], KVM_GET_VCPU_EVENTS, &events) == 0);
  CHECK(events.interrupt.shadow == 0);
  events.interrupt.shadow = 2;
  events.flags = KVM_VCPUEVENT_VALID_SHADOW;
  REQUIRE(call(vcpus[0], KVM_SET_VCPU_EVENTS, &events) == 0);
  CHECK(run() == 0);
  CHECK(shadows == std::vector<bool>{false, true, true});
}
