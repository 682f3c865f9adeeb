// A thread for each vCPU, from KVM_RUN to KVM_RUN until the run ends.
#pragma once

#include <memory>
#include <span>
#include <thread>
#include <vector>

#include "vmm/kvm/handles.hpp"
#include "vmm/run_state.hpp"
#include "vmm/vcpu_exit.hpp"

namespace sevisor::vmm {

class VcpuThreads {
 public:
  // Starts the threads ("vcpu0", ...). All arguments must outlive this object. A kick is SIGUSR1: its disposition is
  // set to a handler that does nothing.
  VcpuThreads(std::span<const kvm::Vcpu> vcpus, const Buses& buses, RunState& state);
  ~VcpuThreads() { stop(); }
  VcpuThreads(const VcpuThreads&) = delete;
  VcpuThreads& operator=(const VcpuThreads&) = delete;

  // Takes the vCPUs out of KVM_RUN and joins their threads. The run must have ended.
  void stop() noexcept;

 private:
  std::span<const kvm::Vcpu> vcpus_;
  std::vector<std::thread> threads_;
};

// What a vCPU's thread does: runs it until the run ends, and ends the run when the vCPU cannot go on.
void run_vcpu(const kvm::Vcpu& vcpu, const Buses& buses, RunState& state) noexcept;

}  // namespace sevisor::vmm
