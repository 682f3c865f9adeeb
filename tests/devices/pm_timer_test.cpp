#include "devices/pm_timer.hpp"

#include <catch2/catch.hpp>

#include "tests/devices/helpers.hpp"

namespace sevisor::devices::test {
namespace {

TEST_CASE("PM timer ticks are exact at any time") {
  CHECK(pm_timer_ticks(0) == 0);
  CHECK(pm_timer_ticks(279) == 0);  // one tick is 279.365... ns
  CHECK(pm_timer_ticks(280) == 1);
  CHECK(pm_timer_ticks(1'000'000'000) == 3'579'545);
  CHECK(pm_timer_ticks(999'999'999) == 3'579'544);
  // Against 128-bit arithmetic, up to the clock's last nanosecond.
  for (const std::uint64_t ns : {std::uint64_t{1}, std::uint64_t{4'686'967'000}, std::uint64_t{123'456'789'012'345},
                                 std::uint64_t{1} << 52, std::uint64_t{1} << 63, ~std::uint64_t{0}}) {
    const auto exact = static_cast<unsigned __int128>(ns) * kPmTimerHz / 1'000'000'000;
    CHECK(pm_timer_ticks(ns) == static_cast<std::uint64_t>(exact));
  }
}

TEST_CASE("the PM timer wraps at 24 bits") {
  ManualClock clock;
  PmTimer timer(clock);
  // Tick 2^24 comes at ceil(2^24 * 10^9 / 3579545) ns.
  clock.now = 4'686'968'874;
  CHECK(in<std::uint32_t>(timer, 0) == 0xffffff);
  clock.now = 4'686'968'875;
  CHECK(in<std::uint32_t>(timer, 0) == 0);
  clock.now += 280;
  CHECK(in<std::uint32_t>(timer, 0) == 1);
}

TEST_CASE("the PM timer can be read in parts and not written") {
  ManualClock clock;
  PmTimer timer(clock);
  clock.now = 1'000'000'000;  // 3579545 = 0x369e99
  CHECK(in<std::uint32_t>(timer, 0) == 0x369e99);
  CHECK(in<std::uint16_t>(timer, 0) == 0x9e99);
  CHECK(in<std::uint8_t>(timer, 2) == 0x36);
  CHECK(in<std::uint8_t>(timer, 3) == 0);
  out(timer, 0, std::uint32_t{7});
  CHECK(in<std::uint32_t>(timer, 0) == 0x369e99);
}

}  // namespace
}  // namespace sevisor::devices::test
