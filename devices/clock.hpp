// The machine's time, for devices that count it.
#pragma once

#include <cstdint>

namespace sevisor::devices {

class Clock {
 public:
  virtual ~Clock() = default;
  // Nanoseconds since the machine was made; never goes back. Called from any thread.
  [[nodiscard]] virtual std::uint64_t now_ns() = 0;

 protected:
  Clock() = default;
  Clock(const Clock&) = default;
  Clock& operator=(const Clock&) = default;
};

inline constexpr std::uint64_t kNsPerSecond = 1'000'000'000;

}  // namespace sevisor::devices
