// A protected vCPU or several, with C++ functions as their guest, and the guest's side of a GHCB.
#pragma once

#include <optional>
#include <vector>

#include "base/bytes.hpp"
#include "ghcb/page.hpp"
#include "tests/emulator_kvm/fake_cpu.hpp"
#include "tests/emulator_kvm/fixture.hpp"

namespace sevisor::test {

inline constexpr std::uint64_t kGhcb = 0x3000;

inline emulator::CpuExit exit_with(std::uint64_t code, std::uint64_t info_1 = 0) {
  emulator::CpuExit exit;
  exit.code = code;
  exit.info1 = info_1;
  return exit;
}

struct RunFixture : HostFixture {
  std::vector<int> vcpus;
  std::vector<kvm_run*> runs;

  // `split_pins`: with local APICs only, and an IOAPIC of so many pins in user space.
  explicit RunFixture(unsigned count = 1, std::optional<unsigned> split_pins = {}) {
    if (split_pins) {
      kvm_enable_cap cap{};
      cap.cap = KVM_CAP_SPLIT_IRQCHIP;
      cap.args[0] = *split_pins;
      REQUIRE(call(vm, KVM_ENABLE_CAP, &cap) == 0);
    } else {
      REQUIRE(call(vm, KVM_CREATE_IRQCHIP) == 0);
    }
    REQUIRE(sev(KVM_SEV_ES_INIT) == 0);
    REQUIRE(slot(0, 0, ram.size(), ram.data()) == 0);
    REQUIRE(start() == 0);
    for (unsigned i = 0; i < count; ++i) {
      vcpus.push_back(call(vm, KVM_CREATE_VCPU, static_cast<unsigned long>(i)));
      runs.push_back(static_cast<kvm_run*>(host->mmap(vcpus.back(), 12288)));
      REQUIRE(runs.back() != nullptr);
    }
    REQUIRE(sev(KVM_SEV_LAUNCH_UPDATE_VMSA) == 0);
  }
  int run(unsigned index = 0) { return call(vcpus[index], KVM_RUN); }
  kvm_run& state(unsigned index = 0) { return *runs[index]; }
  std::byte* data(unsigned index = 0) {
    return reinterpret_cast<std::byte*>(runs[index]) + state(index).io.data_offset;
  }
};

// The guest's side of a GHCB page.
inline ghcb::Page& page_of(Guest& guest) {
  guest.ghcb_msr = kGhcb;
  return *reinterpret_cast<ghcb::Page*>(guest.memory.open(Gpa(kGhcb), emulator::View::kShared).host);
}
inline emulator::CpuExit ask(Guest& guest, ghcb::ExitCode code, std::uint64_t info_1, std::uint64_t info_2,
                             std::uint64_t rax = 0) {
  ghcb::Page& page = page_of(guest);
  page.exit_code = code;
  page.exit_info_1 = info_1;
  page.exit_info_2 = info_2;
  page.rax = rax;
  page.scratch = kGhcb + ghcb::kSharedBufferOffset;
  page.valid.clear();
  for (const auto field : {ghcb::Field::kExitCode, ghcb::Field::kExitInfo1, ghcb::Field::kExitInfo2, ghcb::Field::kRax,
                           ghcb::Field::kRcx, ghcb::Field::kRdx, ghcb::Field::kScratch}) {
    page.valid.set(field);
  }
  return exit_with(ghcb::kExitVmgexit);
}
// The guest writes `value` to a register outside memory.
template <class T>
inline emulator::CpuExit write_mmio(Guest& guest, std::uint64_t gpa, T value) {
  store(page_of(guest).shared_buffer, value);
  return ask(guest, ghcb::kExitMmioWrite, gpa, sizeof value);
}

}  // namespace sevisor::test
