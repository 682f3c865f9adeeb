// A thread for each vCPU, from KVM_RUN to KVM_RUN until the run ends.
#pragma once

#include <memory>
#include <span>
#include <string_view>
#include <thread>
#include <vector>

#include "kvm/handles.hpp"
#include "vmm/end/run_state.hpp"
#include "vmm/end/thread_filter.hpp"
#include "vmm/run/vcpu_exit.hpp"

namespace sevisor::vmm {

class VcpuThreads {
 public:
  // Starts the threads ("vcpu0", ...). All arguments must outlive this object. A kick is SIGUSR1: its disposition is
  // set to a handler that does nothing.
  // `cpus`: vCPU i runs on the i-th of these CPUs of the host alone, counted round; on any if it is empty. `filter`
  // confines each thread.
  VcpuThreads(std::span<const kvm::Vcpu> vcpus, const Buses& buses, RunState& state,
              std::span<const unsigned> cpus = {}, const ThreadFilter& filter = {});
  ~VcpuThreads() { stop(); }
  VcpuThreads(const VcpuThreads&) = delete;
  VcpuThreads& operator=(const VcpuThreads&) = delete;

  // Takes the vCPUs out of KVM_RUN and joins their threads. The run must have ended.
  void stop() noexcept;

 private:
  std::span<const kvm::Vcpu> vcpus_;
  std::vector<std::thread> threads_;
};

// "0-3,8" as CPU numbers. Throws Error (kBadUsage) when it is no such list, or this process may not use one of them.
[[nodiscard]] std::vector<unsigned> parse_cpu_list(std::string_view text);

// What a vCPU's thread does: runs it until the run ends, and ends the run when the vCPU cannot go on.
void run_vcpu(const kvm::Vcpu& vcpu, const Buses& buses, RunState& state) noexcept;

}  // namespace sevisor::vmm
