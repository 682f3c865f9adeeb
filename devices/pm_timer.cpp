#include "devices/pm_timer.hpp"

#include <algorithm>

#include "base/bytes.hpp"

namespace sevisor::devices {

std::uint64_t pm_timer_ticks(std::uint64_t ns) noexcept {
  // Whole seconds are whole numbers of ticks, so the parts can be counted apart without rounding twice or overflowing.
  const std::uint64_t seconds = ns / kNsPerSecond;
  const std::uint64_t rest = ns % kNsPerSecond;
  return seconds * kPmTimerHz + rest * kPmTimerHz / kNsPerSecond;
}

void PmTimer::read(std::uint64_t offset, std::span<std::byte> to) {
  const auto value = static_cast<std::uint32_t>(pm_timer_ticks(clock_.now_ns()) & kMask);
  std::byte bytes[kLength];
  store(bytes, value);
  std::copy_n(bytes + offset, to.size(), to.begin());
}

void PmTimer::write(std::uint64_t /*offset*/, std::span<const std::byte> /*from*/) {}  // read-only

}  // namespace sevisor::devices
