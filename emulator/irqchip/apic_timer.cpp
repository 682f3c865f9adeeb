#include "emulator/irqchip/apic_timer.hpp"

#include <algorithm>

namespace sevisor::emulator {
namespace {

constexpr std::uint32_t kDivideWritable = 0b1011;

std::uint64_t saturating_add(std::uint64_t a, std::uint64_t b) noexcept {
  return a > kNoDeadline - b ? kNoDeadline : a + b;
}

}  // namespace

void ApicTimer::set_mode(Mode mode) noexcept {
  if ((mode == Mode::kTscDeadline) != (mode_ == Mode::kTscDeadline)) {
    expiry_ = kNoDeadline;
    initial_count_ = 0;
  }
  if (mode == Mode::kReserved) expiry_ = kNoDeadline;
  mode_ = mode;
}

unsigned ApicTimer::divisor() const noexcept {
  // Bits 3, 1 and 0 make a number: 0 divides by 2, 1 by 4, .. 6 by 128, and 7 by 1.
  const unsigned code = (divide_configuration_ >> 1 & 4) | (divide_configuration_ & 3);
  return 1U << ((code + 1) & 7);
}

void ApicTimer::set_divide_configuration(std::uint32_t value, std::uint64_t now) noexcept {
  const std::uint64_t left = current_count(now);
  divide_configuration_ = value & kDivideWritable;
  if (mode_ != Mode::kTscDeadline && expiry_ != kNoDeadline) expiry_ = saturating_add(now, left * divisor());
}

void ApicTimer::set_initial_count(std::uint32_t count, std::uint64_t now) noexcept {
  if (mode_ == Mode::kTscDeadline) return;
  restore(count, count, now);
}

void ApicTimer::restore(std::uint32_t initial, std::uint32_t current, std::uint64_t now) noexcept {
  if (mode_ == Mode::kTscDeadline) return;
  initial_count_ = initial;
  const bool runs = initial != 0 && current != 0 && mode_ != Mode::kReserved;
  expiry_ = runs ? saturating_add(now, std::uint64_t{current} * divisor()) : kNoDeadline;
}

std::uint32_t ApicTimer::current_count(std::uint64_t now) const noexcept {
  if (mode_ == Mode::kTscDeadline || expiry_ == kNoDeadline || expiry_ <= now) return 0;
  const std::uint64_t left = expiry_ - now;
  // The count goes down after each whole divided clock, hence rounded up.
  const std::uint64_t count = left / divisor() + (left % divisor() != 0 ? 1 : 0);
  return static_cast<std::uint32_t>(std::min<std::uint64_t>(count, initial_count_));
}

std::uint64_t ApicTimer::tsc_deadline() const noexcept {
  return mode_ == Mode::kTscDeadline && expiry_ != kNoDeadline ? expiry_ : 0;
}

void ApicTimer::set_tsc_deadline(std::uint64_t deadline) noexcept {
  if (mode_ == Mode::kTscDeadline) expiry_ = deadline == 0 ? kNoDeadline : deadline;
}

void ApicTimer::set_clock_forward(std::uint64_t ticks) noexcept {
  if (mode_ != Mode::kTscDeadline && expiry_ != kNoDeadline) expiry_ = saturating_add(expiry_, ticks);
}

bool ApicTimer::advance(std::uint64_t now) noexcept {
  if (expiry_ == kNoDeadline || expiry_ > now) return false;
  const std::uint64_t period = std::uint64_t{initial_count_} * divisor();
  if (mode_ == Mode::kPeriodic && period != 0) {
    const std::uint64_t missed = (now - expiry_) / period;
    expiry_ = saturating_add(expiry_ + missed * period, period);
  } else {
    expiry_ = kNoDeadline;
  }
  return true;
}

}  // namespace sevisor::emulator
