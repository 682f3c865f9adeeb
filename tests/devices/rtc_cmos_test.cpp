#include "devices/rtc_cmos.hpp"

#include <catch2/catch.hpp>

#include "tests/devices/helpers.hpp"

namespace sevisor::devices::test {
namespace {

constexpr std::uint64_t kSecond = 1'000'000'000;
constexpr std::int64_t kStart = 1'709'210'096;  // Thu Feb 29 12:34:56 UTC 2024, as date(1) has it

// Registers (MC146818A datasheet, figure 14).
constexpr unsigned kA = 0x0a;
constexpr unsigned kB = 0x0b;
constexpr unsigned kC = 0x0c;
constexpr unsigned kD = 0x0d;
constexpr unsigned kCentury = 0x32;

struct Bench {
  explicit Bench(std::int64_t start = kStart, std::uint64_t low = 0, std::uint64_t high = 0)
      : rtc(clock, {start, low, high}, irq.line()) {}
  ManualClock clock;
  IrqProbe irq;
  RtcCmos rtc;

  unsigned get(unsigned index) {
    out8(rtc, 0, index);
    return in(rtc, 1);
  }
  void set(unsigned index, unsigned value) {
    out8(rtc, 0, index);
    out8(rtc, 1, value);
  }
  // Century, year, month, day, weekday, hour, minute, second as the registers hold them.
  std::vector<unsigned> time() { return {get(kCentury), get(9), get(8), get(7), get(6), get(4), get(2), get(0)}; }
};
using Time = std::vector<unsigned>;

TEST_CASE("RTC: BCD in 24 hours at first, with valid RAM and no update in progress") {
  Bench b;
  CHECK(b.time() == Time{0x20, 0x24, 0x02, 0x29, 5, 0x12, 0x34, 0x56});
  CHECK(b.get(kA) == 0x26);
  CHECK(b.get(kB) == 0x02);
  CHECK(b.get(kC) == 0x00);
  CHECK(b.get(kD) == 0x80);
  CHECK(b.get(0x80 | 0x0d) == 0x80);  // the NMI mask bit is no part of the index
  CHECK(in(b.rtc, 0) == 0xff);        // the index cannot be read back
}

TEST_CASE("RTC: time passes, over midnight, months and leap years") {
  Bench b;
  b.clock.now = 4 * kSecond - 1;
  CHECK(b.get(0) == 0x59);
  b.clock.now = 4 * kSecond;
  CHECK(b.time() == Time{0x20, 0x24, 0x02, 0x29, 5, 0x12, 0x35, 0x00});
  b.clock.now += 86400 * kSecond;
  CHECK(b.time() == Time{0x20, 0x24, 0x03, 0x01, 6, 0x12, 0x35, 0x00});
  Bench century(946'684'799);  // Fri Dec 31 23:59:59 UTC 1999
  CHECK(century.time() == Time{0x19, 0x99, 0x12, 0x31, 6, 0x23, 0x59, 0x59});
  century.clock.now = kSecond;
  CHECK(century.time() == Time{0x20, 0x00, 0x01, 0x01, 7, 0x00, 0x00, 0x00});
}

TEST_CASE("RTC: binary and 12-hour modes") {
  Bench b;
  b.set(kB, 0x06);
  CHECK(b.time() == Time{20, 24, 2, 29, 5, 12, 34, 56});
  b.set(kB, 0x04);
  CHECK(b.get(4) == (12 | 0x80));  // noon is 12 PM
  b.set(kB, 0x00);
  CHECK(b.get(4) == (0x12 | 0x80));
  b.clock.now = 3600 * kSecond;
  CHECK(b.get(4) == (0x01 | 0x80));
  b.clock.now = 12 * 3600 * kSecond;
  CHECK(b.get(4) == 0x12);  // midnight is 12 AM
  b.set(4, 0x11 | 0x80);
  b.set(kB, 0x02);
  CHECK(b.get(4) == 0x23);
}

TEST_CASE("RTC: the update in progress shows in the last 244 us of a second") {
  Bench b;
  b.clock.now = kSecond - 244'001;
  CHECK(b.get(kA) == 0x26);
  b.clock.now = kSecond - 244'000;
  CHECK(b.get(kA) == 0xa6);
  b.clock.now = kSecond;
  CHECK(b.get(kA) == 0x26);
  b.set(kA, 0xa6);  // the bit cannot be written
  CHECK(b.get(kA) == 0x26);
}

TEST_CASE("RTC: the time can be set as Linux does, with SET and the divider held") {
  Bench b;
  b.clock.now = kSecond / 4;
  b.set(kB, 0x82);
  b.set(kA, 0x76);
  const Time time = {0x19, 0x71, 0x03, 0x04, 5, 0x05, 0x06, 0x07};  // a Thursday
  const unsigned indices[] = {kCentury, 9, 8, 7, 6, 4, 2, 0};
  for (std::size_t i = 0; i < time.size(); ++i) b.set(indices[i], time[i]);
  b.clock.now += 100 * kSecond;
  CHECK(b.time() == time);  // held
  CHECK(b.get(kA) == 0x76);
  b.set(kB, 0x02);
  b.clock.now += 100 * kSecond;
  CHECK(b.time() == time);
  b.set(kA, 0x26);
  b.clock.now += kSecond / 2 - 1;  // the first update comes after half a second
  CHECK(b.time() == time);
  b.clock.now += 1;
  CHECK(b.get(0) == 0x08);
  b.clock.now += kSecond;
  CHECK(b.get(0) == 0x09);
}

TEST_CASE("RTC: SET alone holds the registers without losing the phase") {
  Bench b;
  b.clock.now = kSecond / 4;
  b.set(kB, 0x82);
  b.clock.now = 10 * kSecond + kSecond / 2;
  CHECK(b.get(0) == 0x56);
  b.set(kB, 0x02);
  b.clock.now = 11 * kSecond - 1;
  CHECK(b.get(0) == 0x56);
  b.clock.now = 11 * kSecond;
  CHECK(b.get(0) == 0x57);
}

TEST_CASE("RTC: a running clock takes single fields, weekday included") {
  Bench b;
  b.set(2, 0x00);
  CHECK(b.time() == Time{0x20, 0x24, 0x02, 0x29, 5, 0x12, 0x00, 0x56});
  b.set(6, 1);
  CHECK(b.time() == Time{0x20, 0x24, 0x02, 0x29, 1, 0x12, 0x00, 0x56});
  b.clock.now = 86400 * kSecond;
  CHECK(b.get(6) == 2);
}

TEST_CASE("RTC: nonsense in the time registers becomes some time") {
  for (const unsigned mode : {0x00U, 0x02U, 0x04U, 0x06U}) {
    Bench b;
    b.set(kB, 0x80 | mode);
    for (const unsigned index : {kCentury, 9U, 8U, 7U, 6U, 4U, 2U, 0U}) b.set(index, 0xff);
    b.set(kB, mode);
    b.clock.now = 400 * 86400 * kSecond;
    CHECK(b.get(8) != 0);
    CHECK(b.get(8) <= 0x12);
    CHECK(b.get(7) != 0);
    CHECK(b.get(7) <= 0x31);
    CHECK(b.get(2) <= 0x59);
    CHECK(b.get(0) <= 0x59);
  }
}

TEST_CASE("RTC: CMOS memory keeps bytes, C and D are read-only") {
  Bench b;
  b.set(0x0f, 0xa5);
  b.set(0x7f, 0x5a);
  b.set(kC, 0xff);
  b.set(kD, 0x00);
  CHECK(b.get(0x0f) == 0xa5);
  CHECK(b.get(0x7f) == 0x5a);
  CHECK(b.get(kC) == 0);
  CHECK(b.get(kD) == 0x80);
}

TEST_CASE("RTC: CMOS holds the sizes of memory as PCs do") {
  const auto word = [](Bench& b, unsigned index) { return b.get(index) | b.get(index + 1) << 8U; };
  Bench usual(kStart, 512ULL << 20, 0);
  CHECK(word(usual, 0x15) == 640);
  CHECK(word(usual, 0x17) == 0xffff);  // at most 63 MiB
  CHECK(word(usual, 0x30) == 0xffff);
  CHECK(word(usual, 0x34) == (512 - 16) * 16);
  CHECK(usual.get(0x5b) == 0);
  Bench large(kStart, 3ULL << 30, 5ULL << 30);
  CHECK(word(large, 0x34) == (3072 - 16) * 16);
  CHECK((large.get(0x5b) | large.get(0x5c) << 8U | large.get(0x5d) << 16U) == 5 * 1024 * 16);
  Bench small(kStart, 8ULL << 20, 0);
  CHECK(word(small, 0x30) == 7 * 1024);
  CHECK(word(small, 0x34) == 0);
}

TEST_CASE("RTC: update interrupt") {
  Bench b;
  CHECK_FALSE(b.rtc.next_event_ns().has_value());
  b.set(kB, 0x12);
  CHECK(b.rtc.next_event_ns() == kSecond);
  b.clock.now = kSecond - 1;
  b.rtc.poll();
  CHECK_FALSE(b.irq.level);
  b.clock.now = kSecond;
  b.rtc.poll();
  CHECK(b.irq.level);
  CHECK_FALSE(b.rtc.next_event_ns().has_value());  // asserted already
  CHECK(b.get(kC) == 0xd0);                        // IRQF and UF; and PF, which is set without its interrupt too
  CHECK_FALSE(b.irq.level);
  CHECK(b.get(kC) == 0);
  CHECK(b.rtc.next_event_ns() == 2 * kSecond);
  b.set(kB, 0x92);  // SET turns the interrupt off
  CHECK(b.get(kB) == 0x82);
}

TEST_CASE("RTC: flags are set without their interrupts too") {
  Bench b;
  b.clock.now = kSecond;
  CHECK(b.get(kC) == 0x50);  // UF and PF, but no IRQF
  CHECK_FALSE(b.irq.level);
  b.clock.now = 2 * kSecond;
  b.rtc.poll();
  b.set(kB, 0x12);  // enabling the interrupt of a flag that is set raises it
  CHECK(b.irq.level);
}

TEST_CASE("RTC: alarm at a time of day") {
  Bench b;
  b.set(5, 0x12);
  b.set(3, 0x35);
  b.set(1, 0x10);
  b.set(kB, 0x22);
  CHECK(b.rtc.next_event_ns() == 14 * kSecond);
  b.clock.now = 14 * kSecond - 1;
  b.rtc.poll();
  CHECK_FALSE(b.irq.level);
  b.clock.now = 14 * kSecond;
  b.rtc.poll();
  CHECK(b.irq.level);
  CHECK(b.get(kC) == 0xf0);
  CHECK(b.rtc.next_event_ns() == (86400 + 14) * kSecond);  // again tomorrow
}

TEST_CASE("RTC: alarm bytes that do not care") {
  Bench b;
  b.set(5, 0xff);
  b.set(3, 0xc0);
  b.set(1, 0x05);
  b.set(kB, 0x22);
  CHECK(b.rtc.next_event_ns() == 9 * kSecond);  // 12:35:05
  b.clock.now = 9 * kSecond;
  CHECK(b.get(kC) == 0xf0);
  CHECK(b.rtc.next_event_ns() == 69 * kSecond);
  b.set(1, 0xff);
  CHECK(b.rtc.next_event_ns() == 10 * kSecond);  // every second
  b.set(1, 0x77);                                // never
  CHECK_FALSE(b.rtc.next_event_ns().has_value());
  b.set(1, 0xff);
  b.set(5, 0x00);
  CHECK(b.rtc.next_event_ns() == (11 * 3600 + 25 * 60 + 4) * kSecond);  // midnight
}

TEST_CASE("RTC: alarm in 12-hour binary mode") {
  Bench b;
  b.set(kB, 0x24);
  b.set(5, 1 | 0x80);
  b.set(3, 0);
  b.set(1, 0);
  CHECK(b.rtc.next_event_ns() == (25 * 60 + 4) * kSecond);
}

TEST_CASE("RTC: periodic interrupt at each rate") {
  // Period in ns, rounded up: 2^(rate-1) / 32768 s, but rates 1 and 2 are those of 8 and 9.
  const std::uint64_t periods[] = {0,          3'906'250,   7'812'500,   122'071,    244'141,    488'282,
                                   976'563,    1'953'125,   3'906'250,   7'812'500,  15'625'000, 31'250'000,
                                   62'500'000, 125'000'000, 250'000'000, 500'000'000};
  for (unsigned rate = 0; rate < 16; ++rate) {
    Bench b;
    b.set(kA, 0x20 | rate);
    b.set(kB, 0x42);
    if (rate == 0) {
      CHECK_FALSE(b.rtc.next_event_ns().has_value());
      continue;
    }
    CHECK(b.rtc.next_event_ns() == periods[rate]);
    b.clock.now = periods[rate] - 1;
    b.rtc.poll();
    CHECK_FALSE(b.irq.level);
    b.clock.now = periods[rate];
    b.rtc.poll();
    CHECK(b.irq.level);
    CHECK(b.get(kC) == 0xc0);
  }
}

TEST_CASE("RTC: periods do not drift") {
  Bench b;
  b.set(kB, 0x42);  // 1024 Hz
  unsigned interrupts = 0;
  while (true) {
    const auto next = b.rtc.next_event_ns();
    REQUIRE(next.has_value());
    if (*next > 3 * kSecond) break;
    REQUIRE(*next > b.clock.now);
    b.clock.now = *next;
    b.rtc.poll();
    REQUIRE(b.irq.level);
    (void)b.get(kC);
    ++interrupts;
  }
  CHECK(interrupts == 3 * 1024);
  CHECK(b.clock.now == 3 * kSecond);
}

}  // namespace
}  // namespace sevisor::devices::test
