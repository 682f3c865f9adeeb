// A processor that runs a C++ function in place of a guest. It stands in for emulator_cpu in this test program, so that
// KVM_RUN can be tested exit by exit.
#pragma once

#include <cstdint>
#include <functional>

#include "emulator/cpu/cpu.hpp"

namespace sevisor::test {

struct Guest {
  emulator::GuestMemory& memory;
  emulator::VirtualClock& clock;
  std::uint64_t tsc_per_instruction;
  emulator::Vmsa state{};
  bool interrupts = false;
  bool shadow = false;
  std::uint64_t ghcb_msr = 0;
  unsigned cr8 = 0;
  std::uint64_t retired = 0;

  void spend(std::uint64_t instructions) {
    retired += instructions;
    clock.now += instructions * tsc_per_instruction;
  }
};

// Called for each VMRUN; returns the exit.
using GuestCode = std::function<emulator::CpuExit(Guest&, const emulator::RunControls&)>;

// The code of the vCPU with this id, for all VMs made from now on. One test runs at a time.
void set_guest_code(unsigned vcpu_id, GuestCode code);

}  // namespace sevisor::test
