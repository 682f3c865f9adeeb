// The timer of a local APIC: one-shot, periodic or TSC-deadline (Intel SDM vol. 3, "APIC Timer").
// Its input clock is 1 GHz, the same as the TSC: one tick is 1 ns (the APIC bus clock that KVM emulates).
#pragma once

#include <cstdint>

namespace sevisor::emulator {

inline constexpr std::uint64_t kNoDeadline = ~std::uint64_t{0};

// Times are TSC ticks, absolute; the caller's clock never goes back.
class ApicTimer {
 public:
  // Values as in bits 18:17 of the LVT timer entry. kReserved never fires.
  enum class Mode : std::uint8_t { kOneShot = 0, kPeriodic = 1, kTscDeadline = 2, kReserved = 3 };

  [[nodiscard]] Mode mode() const noexcept { return mode_; }
  // A change between TSC-deadline and another mode stops the timer, and so does kReserved; others let the count go on.
  void set_mode(Mode mode) noexcept;

  // Divide configuration register, bits 3, 1 and 0. A change while counting keeps the current count.
  [[nodiscard]] std::uint32_t divide_configuration() const noexcept { return divide_configuration_; }
  void set_divide_configuration(std::uint32_t value, std::uint64_t now) noexcept;
  // 1, 2, 4, .. 128
  [[nodiscard]] unsigned divisor() const noexcept;

  // Starts the count; 0 stops it. No effect in TSC-deadline mode.
  [[nodiscard]] std::uint32_t initial_count() const noexcept { return initial_count_; }
  void set_initial_count(std::uint32_t count, std::uint64_t now) noexcept;
  // 0 when the timer is stopped or in TSC-deadline mode.
  [[nodiscard]] std::uint32_t current_count(std::uint64_t now) const noexcept;

  // IA32_TSC_DEADLINE: 0 when not armed or in another mode. Writing 0 disarms; no effect in another mode.
  [[nodiscard]] std::uint64_t tsc_deadline() const noexcept;
  void set_tsc_deadline(std::uint64_t deadline) noexcept;

  // Takes up a saved count that had `current` left.
  void restore(std::uint32_t initial, std::uint32_t current, std::uint64_t now) noexcept;

  // The caller's clock has jumped ahead without time passing: a count has as much left as before. A TSC deadline stays.
  void set_clock_forward(std::uint64_t ticks) noexcept;

  // True when the timer has expired at or before `now`, any number of times since the last call.
  [[nodiscard]] bool advance(std::uint64_t now) noexcept;
  // When advance() will next return true, kNoDeadline when never.
  [[nodiscard]] std::uint64_t next_deadline() const noexcept { return expiry_; }

 private:
  Mode mode_ = Mode::kOneShot;
  std::uint32_t divide_configuration_ = 0;
  std::uint32_t initial_count_ = 0;
  std::uint64_t expiry_ = kNoDeadline;
};

}  // namespace sevisor::emulator
