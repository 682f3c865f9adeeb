// What KVM leaves to user space when a guest's encryption context moves to another VM
// (KVM_CAP_VM_MOVE_ENC_CONTEXT_FROM): all that is neither in the VMSA nor in the GHCB. Linux
// Documentation/virt/kvm/api.rst.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <vector>

#include "kvm/abi.hpp"
#include "kvm/host.hpp"

namespace sevisor::test {

// Descriptors of a host.
struct MachineFds {
  int vm = -1;
  std::vector<int> vcpus;
};

struct VcpuState {
  // Readable of VMs of type 0 alone: the others hide it once the vCPU is protected.
  std::optional<kvm_sregs> sregs;
  std::optional<kvm_xcrs> xcrs;
  std::vector<kvm_msr_entry> msrs;
  kvm_lapic_state lapic{};
  kvm_vcpu_events events{};
  kvm_mp_state mp_state{};
};

struct MachineState {
  std::vector<VcpuState> vcpus;
  std::array<kvm_irqchip, 3> chips{};
  kvm_pit_state2 pit{};
  kvm_clock_data clock{};
};

// No vCPU may be in KVM_RUN, or have an exit that is not completed. Throws std::runtime_error, as do the others.
[[nodiscard]] MachineState read_state(kvm::Host& host, int kvm, const MachineFds& machine);

// What a protected vCPU does not take any more: before the move.
void write_state_before(const MachineState& state, kvm::Host& host, const MachineFds& machine);
// The rest, whose times count from the clock that the move brings along.
void write_state_after(const MachineState& state, kvm::Host& host, const MachineFds& machine);

}  // namespace sevisor::test
