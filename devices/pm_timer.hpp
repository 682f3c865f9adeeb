// The ACPI power-management timer: 3.579545 MHz, 24 bits (ACPI 6.4, 4.8.3.3).
#pragma once

#include <cstdint>
#include <span>

#include "devices/bus.hpp"
#include "devices/clock.hpp"

namespace sevisor::devices {

inline constexpr std::uint64_t kPmTimerPort = 0x608;
inline constexpr std::uint64_t kPmTimerHz = 3'579'545;

// The counter of an ideal timer `ns` after its start, without its wrap at 24 bits: floor(ns * kPmTimerHz / 10^9).
[[nodiscard]] std::uint64_t pm_timer_ticks(std::uint64_t ns) noexcept;

class PmTimer final : public Device {
 public:
  static constexpr std::uint64_t kLength = 4;
  static constexpr std::uint32_t kMask = 0xffffff;  // so FADT.TMR_VAL_EXT is 0

  explicit PmTimer(Clock& clock) : clock_(clock) {}

  void read(std::uint64_t offset, std::span<std::byte> to) override;
  void write(std::uint64_t offset, std::span<const std::byte> from) override;

 private:
  Clock& clock_;
};

}  // namespace sevisor::devices
