#include "vmm/machine/vm_clock.hpp"

#include <algorithm>

namespace sevisor::vmm {

std::uint64_t VmClock::now_ns() {
  const auto steady = [this] {
    const auto passed = std::chrono::steady_clock::now() - start_;
    return static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(passed).count());
  };
  const std::optional<std::uint64_t> clock = vm_.clock_ns();
  const std::uint64_t now = clock ? *clock : steady();
  std::uint64_t latest = latest_.load(std::memory_order_relaxed);
  while (latest < now && !latest_.compare_exchange_weak(latest, now, std::memory_order_relaxed)) {
  }
  return std::max(latest, now);
}

}  // namespace sevisor::vmm
