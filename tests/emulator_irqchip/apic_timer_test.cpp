// Intel SDM vol. 3, "APIC Timer": divide values, count down, modes, TSC deadline.
#include "emulator/irqchip/apic_timer.hpp"

#include <array>
#include <catch2/catch.hpp>
#include <utility>

using sevisor::emulator::ApicTimer;
using sevisor::emulator::kNoDeadline;

TEST_CASE("The divide configuration has the manual's values") {
  constexpr std::array<std::pair<std::uint32_t, unsigned>, 8> kTable = {
      {{0b0000, 2}, {0b0001, 4}, {0b0010, 8}, {0b0011, 16}, {0b1000, 32}, {0b1001, 64}, {0b1010, 128}, {0b1011, 1}}};
  for (const auto& [code, divisor] : kTable) {
    ApicTimer timer;
    timer.set_divide_configuration(code, 0);
    CHECK(timer.divisor() == divisor);
    timer.set_initial_count(10, 1000);
    CHECK(timer.next_deadline() == 1000 + 10 * divisor);
  }
  ApicTimer timer;
  timer.set_divide_configuration(0xffffffff, 0);
  CHECK(timer.divide_configuration() == 0b1011);
}

TEST_CASE("One-shot counts down once") {
  ApicTimer timer;  // divides by 2 after reset
  timer.set_initial_count(100, 50);
  CHECK(timer.current_count(50) == 100);
  CHECK(timer.current_count(51) == 100);
  CHECK(timer.current_count(52) == 99);
  CHECK(timer.current_count(249) == 1);
  CHECK_FALSE(timer.advance(249));
  CHECK(timer.advance(250));
  CHECK(timer.current_count(250) == 0);
  CHECK(timer.initial_count() == 100);
  CHECK_FALSE(timer.advance(10'000));
  CHECK(timer.next_deadline() == kNoDeadline);
}

TEST_CASE("An initial count of 0 stops the timer") {
  ApicTimer timer;
  timer.set_initial_count(100, 0);
  timer.set_initial_count(0, 10);
  CHECK(timer.next_deadline() == kNoDeadline);
  CHECK(timer.current_count(10) == 0);
}

TEST_CASE("Periodic keeps its phase however late it is looked at") {
  ApicTimer timer;
  timer.set_mode(ApicTimer::Mode::kPeriodic);
  timer.set_divide_configuration(0b1011, 0);
  timer.set_initial_count(1000, 0);
  CHECK(timer.advance(1000));
  CHECK(timer.next_deadline() == 2000);
  CHECK(timer.current_count(1000) == 1000);
  CHECK(timer.advance(5400));
  CHECK(timer.next_deadline() == 6000);
  CHECK(timer.current_count(5400) == 600);
  CHECK_FALSE(timer.advance(5999));
}

TEST_CASE("A new divisor keeps the current count") {
  ApicTimer timer;
  timer.set_divide_configuration(0b1011, 0);
  timer.set_initial_count(1000, 0);
  timer.set_divide_configuration(0b0001, 400);
  CHECK(timer.current_count(400) == 600);
  CHECK(timer.next_deadline() == 400 + 600 * 4);
}

TEST_CASE("TSC deadline fires once and reads 0 after it") {
  ApicTimer timer;
  timer.set_tsc_deadline(500);
  CHECK(timer.tsc_deadline() == 0);  // another mode: ignored
  timer.set_initial_count(77, 0);
  timer.set_mode(ApicTimer::Mode::kTscDeadline);
  CHECK(timer.next_deadline() == kNoDeadline);  // the change disarms
  CHECK(timer.initial_count() == 0);
  timer.set_initial_count(77, 0);
  CHECK(timer.next_deadline() == kNoDeadline);  // the count is not used in this mode
  timer.set_tsc_deadline(500);
  CHECK(timer.tsc_deadline() == 500);
  CHECK(timer.current_count(100) == 0);
  CHECK_FALSE(timer.advance(499));
  CHECK(timer.advance(500));
  CHECK(timer.tsc_deadline() == 0);
  timer.set_tsc_deadline(900);
  timer.set_tsc_deadline(0);
  CHECK_FALSE(timer.advance(1000));
  timer.set_tsc_deadline(3);  // in the past: at once
  CHECK(timer.advance(1000));
  timer.set_tsc_deadline(2000);
  timer.set_mode(ApicTimer::Mode::kOneShot);
  CHECK_FALSE(timer.advance(3000));
}

TEST_CASE("The reserved mode stops the timer") {
  ApicTimer timer;
  timer.set_initial_count(100, 0);
  timer.set_mode(ApicTimer::Mode::kReserved);
  CHECK(timer.next_deadline() == kNoDeadline);
  timer.set_initial_count(100, 0);
  CHECK(timer.next_deadline() == kNoDeadline);
}

TEST_CASE("A count near the end of time does not wrap") {
  ApicTimer timer;
  timer.set_mode(ApicTimer::Mode::kPeriodic);
  timer.set_divide_configuration(0b1010, 0);
  timer.set_initial_count(0xffffffff, kNoDeadline - 10);
  CHECK(timer.next_deadline() == kNoDeadline);
  CHECK_FALSE(timer.advance(kNoDeadline - 1));
}

TEST_CASE("A clock that jumps ahead leaves a count as it is, and a deadline too") {
  ApicTimer timer;
  timer.set_initial_count(100, 50);
  timer.set_clock_forward(10'000);
  CHECK(timer.current_count(10'050) == 100);
  CHECK_FALSE(timer.advance(10'249));
  CHECK(timer.advance(10'250));
  timer.set_clock_forward(10'000);
  CHECK(timer.next_deadline() == kNoDeadline);
  timer.set_mode(ApicTimer::Mode::kTscDeadline);
  timer.set_tsc_deadline(30'000);
  timer.set_clock_forward(5'000);
  CHECK(timer.next_deadline() == 30'000);
}
