// Several vCPUs: turns, INIT and SIPI, reset hold.
#include <atomic>
#include <mutex>
#include <thread>

#include "base/bytes.hpp"
#include "ghcb/ioio.hpp"
#include "ghcb/page.hpp"
#include "tests/emulator_kvm/fake_cpu.hpp"
#include "tests/emulator_kvm/fixture.hpp"

using namespace sevisor;
using namespace sevisor::test;
using emulator::CpuExit;
using emulator::RunControls;

namespace {

constexpr std::uint32_t kIcrLow = 0xfee00300;
constexpr std::uint32_t kIcrHigh = 0xfee00310;

CpuExit exit_with(std::uint64_t code) {
  CpuExit exit;
  exit.code = code;
  return exit;
}

struct Machine : HostFixture {
  static constexpr unsigned kVcpus = 2;
  int vcpus[kVcpus];
  kvm_run* runs[kVcpus];

  Machine() {
    REQUIRE(call(vm, KVM_CREATE_IRQCHIP) == 0);
    REQUIRE(sev(KVM_SEV_ES_INIT) == 0);
    REQUIRE(slot(0, 0, ram.size(), ram.data()) == 0);
    REQUIRE(start() == 0);
    for (unsigned i = 0; i < kVcpus; ++i) {
      vcpus[i] = call(vm, KVM_CREATE_VCPU, static_cast<unsigned long>(i));
      runs[i] = static_cast<kvm_run*>(host->mmap(vcpus[i], 12288));
    }
    REQUIRE(sev(KVM_SEV_LAUNCH_UPDATE_VMSA) == 0);
  }
  // Runs a vCPU as a VMM's thread does, until it shuts down. Port exits are answered and noted.
  void run_to_end(unsigned index, std::string& log, std::mutex& mutex) {
    while (true) {
      const int result = call(vcpus[index], KVM_RUN);
      if (result == -EAGAIN) {
        const std::lock_guard lock(mutex);
        log += "a";
        continue;
      }
      if (result != 0 || runs[index]->exit_reason != KVM_EXIT_IO) return;
      const std::lock_guard lock(mutex);
      log += static_cast<char>(*(reinterpret_cast<char*>(runs[index]) + 4096));
    }
  }
  std::string run_both() {
    std::string log;
    std::mutex mutex;
    std::thread second([&] { run_to_end(1, log, mutex); });
    run_to_end(0, log, mutex);
    second.join();
    return log;
  }
};

ghcb::Page& page_of(Guest& guest, std::uint64_t gpa) {
  guest.ghcb_msr = gpa;
  return *reinterpret_cast<ghcb::Page*>(guest.memory.open(Gpa(gpa), emulator::View::kShared).host);
}
CpuExit ask(Guest& guest, std::uint64_t gpa, ghcb::ExitCode code, std::uint64_t info_1, std::uint64_t info_2,
            std::uint64_t rax = 0) {
  ghcb::Page& page = page_of(guest, gpa);
  page.exit_code = code;
  page.exit_info_1 = info_1;
  page.exit_info_2 = info_2;
  page.rax = rax;
  page.scratch = gpa + ghcb::kSharedBufferOffset;
  page.valid.word[0] = page.valid.word[1] = ~0ull;
  return exit_with(ghcb::kExitVmgexit);
}
CpuExit write_apic(Guest& guest, std::uint64_t gpa, std::uint32_t reg, std::uint32_t value) {
  store(page_of(guest, gpa).shared_buffer, value);
  return ask(guest, gpa, ghcb::kExitMmioWrite, reg, 4);
}
CpuExit print(Guest& guest, std::uint64_t gpa, char c) {
  return ask(guest, gpa, ghcb::kExitIoio, encode(ghcb::IoAccess{.port = 0x3f8}), 0, static_cast<std::uint64_t>(c));
}

}  // namespace

TEST_CASE_METHOD(Machine, "the second vCPU starts at the first SIPI, and leaves its hold at the next") {
  int boot = 0;
  bool held = false;
  set_guest_code(0, [&](Guest& guest, const RunControls& controls) {
    if (boot == 5 && !held) {  // the other one is still on its way
      guest.spend(controls.instruction_limit);
      return exit_with(ghcb::kExitIntr);
    }
    guest.spend(10);
    switch (boot++) {
      case 0:
        return write_apic(guest, 0x3000, 0xfee000f0, 0x1ff);
      case 1:
      case 5:
        return write_apic(guest, 0x3000, kIcrHigh, 1 << 24);
      case 2:
      case 6:
        return write_apic(guest, 0x3000, kIcrLow, 0x4500);  // INIT
      case 3:
      case 7:
        return write_apic(guest, 0x3000, kIcrLow, 0x4608);  // SIPI
      case 4:
        return print(guest, 0x3000, '0');
      default:
        return exit_with(ghcb::kExitShutdown);
    }
  });
  int second = 0;
  std::uint64_t first_rip = 0;
  std::uint64_t hold_result = ~0ull;
  set_guest_code(1, [&](Guest& guest, const RunControls&) {
    guest.spend(10);
    switch (second++) {
      case 0:
        first_rip = guest.state.rip;
        return print(guest, 0x5000, '1');
      case 1:
        held = true;
        return ask(guest, 0x5000, ghcb::kExitApResetHold, 0, 0);
      case 2:
        hold_result = page_of(guest, 0x5000).exit_info_2;
        return print(guest, 0x5000, '2');
      default:
        return exit_with(ghcb::kExitShutdown);
    }
  });
  const std::string log = run_both();
  CHECK(first_rip == 0xfff0);  // the VMSA's, not the SIPI vector's
  CHECK(hold_result == 1);
  CHECK(log.find('1') != std::string::npos);
  CHECK(log.find('2') != std::string::npos);
  CHECK(log.find('a') != std::string::npos);  // KVM_RUN of an uninitialised vCPU ends with EAGAIN when INIT comes
}

TEST_CASE_METHOD(Machine, "one that spins gives its turn to the one that holds the lock") {
  for (const int vcpu : vcpus) REQUIRE(call_with(vcpu, KVM_SET_MP_STATE, kvm_mp_state{KVM_MP_STATE_RUNNABLE}) == 0);
  // The second one needs `kWork` slices with the lock; what the first does meanwhile is one spin a slice.
  constexpr int kWork = 50;
  const std::uint64_t how = GENERATE(std::uint64_t{ghcb::kExitPause}, std::uint64_t{ghcb::kExitIntr});
  int spins = 0;
  int work = 0;
  std::uint64_t spun = 0;
  set_guest_code(0, [&](Guest& guest, const RunControls& controls) {
    if (work == kWork) return exit_with(ghcb::kExitShutdown);
    ++spins;
    // PAUSE leaves after a few instructions; a loop without it uses its slice up.
    const std::uint64_t used = how == ghcb::kExitPause ? 10 : controls.instruction_limit;
    guest.spend(used);
    if (work != 0) spun += used;
    return exit_with(how);
  });
  set_guest_code(1, [&](Guest& guest, const RunControls& controls) {
    if (work == kWork) return exit_with(ghcb::kExitShutdown);
    ++work;
    guest.spend(controls.instruction_limit);
    return exit_with(ghcb::kExitIntr);
  });
  const int alone = 1;  // the first one's thread may come before the other's
  (void)run_both();
  CHECK(work == kWork);
  CHECK(spins > 0);
  if (how == ghcb::kExitPause) CHECK(spun <= std::uint64_t{10} * (kWork + alone));
}

TEST_CASE_METHOD(Machine, "turns are taken in order, and the same each time") {
  // Both run from the start and print every third slice.
  for (const int vcpu : vcpus) REQUIRE(call_with(vcpu, KVM_SET_MP_STATE, kvm_mp_state{KVM_MP_STATE_RUNNABLE}) == 0);
  for (unsigned id = 0; id < kVcpus; ++id) {
    set_guest_code(id, [id, count = 0](Guest& guest, const RunControls& controls) mutable {
      ++count;
      if (count == 40) return exit_with(ghcb::kExitShutdown);
      if (count % 3 == 0) {
        guest.spend(100);
        return print(guest, 0x3000 + id * 0x1000, static_cast<char>(id == 0 ? 'x' : 'y'));
      }
      guest.spend(controls.instruction_limit);
      return exit_with(ghcb::kExitIntr);
    });
  }
  const std::string log = run_both();
  // One starts alone, as its thread comes first; from then on they alternate.
  const std::size_t both = std::min(log.find('x'), log.find('y'));
  REQUIRE(both != std::string::npos);
  CHECK(std::count(log.begin(), log.end(), 'x') == 13);
  CHECK(std::count(log.begin(), log.end(), 'y') == 13);
  std::string expected;
  for (int i = 0; i < 13; ++i) expected += "xy";
  CHECK(log == expected);
}

// OVMF's first processor polls the ACPI timer while it waits for the others.
TEST_CASE_METHOD(Machine, "a vCPU that polls a device does not keep the turn") {
  for (const int vcpu : vcpus) REQUIRE(call_with(vcpu, KVM_SET_MP_STATE, kvm_mp_state{KVM_MP_STATE_RUNNABLE}) == 0);
  std::atomic<bool> done = false;
  int polls = 0;
  set_guest_code(0, [&](Guest& guest, const RunControls&) {
    if (done || ++polls > 10'000) return exit_with(ghcb::kExitShutdown);
    guest.spend(20);
    return print(guest, 0x3000, 'x');
  });
  int turns = 0;
  set_guest_code(1, [&](Guest& guest, const RunControls& controls) {
    if (++turns == 10) {
      done = true;
      return exit_with(ghcb::kExitShutdown);
    }
    guest.spend(controls.instruction_limit);
    return exit_with(ghcb::kExitIntr);
  });
  const std::string log = run_both();
  CHECK(turns == 10);
  // A slice has 1,000 instructions here.
  CHECK(polls == 500);
  CHECK(std::count(log.begin(), log.end(), 'x') == 500);
}
