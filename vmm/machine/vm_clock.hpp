// The VM's own clock, for devices: virtual on a host whose time is virtual, real on others.
#pragma once

#include <atomic>
#include <chrono>

#include "devices/clock.hpp"
#include "kvm/handles.hpp"

namespace sevisor::vmm {

class VmClock final : public devices::Clock {
 public:
  // `vm` must outlive this object. A host without a VM clock is read on the steady clock instead.
  explicit VmClock(const kvm::Vm& vm) : vm_(vm) {}
  [[nodiscard]] std::uint64_t now_ns() override;

 private:
  const kvm::Vm& vm_;
  const std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  std::atomic<std::uint64_t> latest_ = 0;  // so that time never goes back between threads
};

}  // namespace sevisor::vmm
