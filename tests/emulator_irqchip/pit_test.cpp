// Intel 8254 datasheet: modes, latch, read-back; port 0x61 of a PC.
#include "emulator/irqchip/pit.hpp"

#include <catch2/catch.hpp>

using namespace sevisor::emulator;

namespace {

constexpr std::uint64_t kNever = ~std::uint64_t{0};

// The first nanosecond of a PIT clock, counted from 0.
constexpr std::uint64_t at(std::uint64_t clock) { return (clock * 1'000'000'000 + kPitFrequency - 1) / kPitFrequency; }

void program(Pit& pit, unsigned channel, unsigned mode, std::uint16_t count, std::uint64_t now) {
  pit.write_port(0x43, static_cast<std::uint8_t>(channel << 6 | 0x30 | mode << 1), now);
  pit.write_port(static_cast<std::uint16_t>(0x40 + channel), static_cast<std::uint8_t>(count), now);
  pit.write_port(static_cast<std::uint16_t>(0x40 + channel), static_cast<std::uint8_t>(count >> 8), now);
}

unsigned read_count(Pit& pit, unsigned channel, std::uint64_t now) {
  const auto port = static_cast<std::uint16_t>(0x40 + channel);
  const unsigned low = pit.read_port(port, now);
  return low | static_cast<unsigned>(pit.read_port(port, now)) << 8;
}

}  // namespace

TEST_CASE("PIT ports") {
  const Pit with(true, 0);
  const Pit without(false, 0);
  CHECK(with.owns_port(0x40));
  CHECK(with.owns_port(0x43));
  CHECK_FALSE(with.owns_port(0x44));
  CHECK(with.owns_port(0x61));
  CHECK_FALSE(without.owns_port(0x61));
}

TEST_CASE("Mode 0 raises OUT N + 1 clocks after the count is written, once") {
  Pit pit(true, 0);
  program(pit, 0, 0, 100, at(1000));
  CHECK(pit.next_deadline() == at(1101));
  CHECK_FALSE(pit.output(0, at(1101) - 1));
  CHECK(pit.output(0, at(1101)));
  CHECK_FALSE(pit.advance(at(1101) - 1));
  CHECK(pit.advance(at(1101)));
  CHECK_FALSE(pit.advance(at(500'000)));
  CHECK(pit.next_deadline() == kNever);
  CHECK(read_count(pit, 0, at(1001)) == 100);
  CHECK(read_count(pit, 0, at(1002)) == 99);
  CHECK(read_count(pit, 0, at(1101)) == 0);
  CHECK(read_count(pit, 0, at(1102)) == 0xffff);  // goes on
}

TEST_CASE("Mode 2 divides: OUT is low for the last clock, and rises each N clocks for ever") {
  Pit pit(true, 0);
  program(pit, 0, 2, 1193, 0);  // HZ = 1000
  CHECK(pit.output(0, at(1)));
  CHECK(read_count(pit, 0, at(1)) == 1193);
  CHECK(read_count(pit, 0, at(1 + 1192)) == 1);
  CHECK_FALSE(pit.output(0, at(1 + 1192)));
  CHECK(pit.output(0, at(1 + 1193)));
  CHECK(read_count(pit, 0, at(1 + 1193)) == 1193);
  std::uint64_t ticks = 0;
  while (pit.next_deadline() <= 1'000'000'000) {
    const std::uint64_t due = pit.next_deadline();
    REQUIRE(due == at(1 + 1193 * (ticks + 1)));
    REQUIRE(pit.advance(due));
    ++ticks;
  }
  CHECK(ticks == (kPitFrequency - 1) / 1193);
}

TEST_CASE("A count of 0 is 65536: 18.2 Hz") {
  Pit pit(true, 0);
  program(pit, 0, 3, 0, 0);
  CHECK(pit.next_deadline() == at(1 + 65536));
  CHECK(pit.advance(at(65537 + 3 * 65536)));  // late: one rise is told, the phase is kept
  CHECK(pit.next_deadline() == at(1 + 5 * 65536));
}

TEST_CASE("Mode 3 is a square wave that counts down by two") {
  Pit pit(true, 0);
  program(pit, 0, 3, 10, 0);
  CHECK(read_count(pit, 0, at(1)) == 10);
  CHECK(read_count(pit, 0, at(2)) == 8);
  CHECK(read_count(pit, 0, at(6)) == 10);
  CHECK(pit.output(0, at(5)));
  CHECK_FALSE(pit.output(0, at(6)));
  CHECK_FALSE(pit.output(0, at(10)));
  CHECK(pit.output(0, at(11)));
  program(pit, 0, 3, 5, at(100));  // odd: high for 3, low for 2
  unsigned high = 0;
  for (unsigned clock = 0; clock < 5; ++clock) {
    high += pit.output(0, at(101 + clock)) ? 1U : 0U;
    CHECK(read_count(pit, 0, at(101 + clock)) <= 4);
  }
  CHECK(high == 3);
}

TEST_CASE("Mode 4 strobes low for one clock, and rises after it") {
  Pit pit(true, 0);
  program(pit, 0, 4, 50, 0);
  CHECK(pit.output(0, at(50)));
  CHECK_FALSE(pit.output(0, at(51)));
  CHECK(pit.output(0, at(52)));
  CHECK(pit.next_deadline() == at(52));
  CHECK(pit.advance(at(52)));
  CHECK(pit.next_deadline() == kNever);
}

TEST_CASE("A mode without its count does not run, and OUT has its initial level") {
  Pit pit(true, 0);
  pit.write_port(0x43, 0x30, 0);
  CHECK_FALSE(pit.output(0, at(100'000)));
  pit.write_port(0x43, 0x34, 0);
  CHECK(pit.output(0, at(100'000)));
  CHECK(pit.next_deadline() == kNever);
  pit.write_port(0x40, 0x10, 0);
  CHECK(pit.next_deadline() == kNever);  // the high byte is missing
  pit.write_port(0x40, 0x00, 0);
  CHECK(pit.next_deadline() == at(17));
}

TEST_CASE("One-byte access modes") {
  Pit pit(true, 0);
  pit.write_port(0x43, 0x90, 0);  // channel 2, low byte, mode 0
  pit.write_port(0x61, 0x01, 0);
  pit.write_port(0x42, 0x40, 0);
  CHECK(pit.read_port(0x42, at(1)) == 0x40);
  CHECK(pit.read_port(0x42, at(2)) == 0x3f);
  pit.write_port(0x43, 0xa0, 0);  // high byte
  pit.write_port(0x42, 0x12, 0);
  CHECK(pit.read_port(0x42, at(1)) == 0x12);
  CHECK(pit.read_port(0x42, at(2)) == 0x11);
}

TEST_CASE("BCD counts in decimal") {
  Pit pit(true, 0);
  pit.write_port(0x43, 0x35, 0);  // mode 2, BCD
  pit.write_port(0x40, 0x00, 0);
  pit.write_port(0x40, 0x10, 0);
  CHECK(pit.next_deadline() == at(1001));
  CHECK(read_count(pit, 0, at(1)) == 0x1000);
  CHECK(read_count(pit, 0, at(2)) == 0x0999);
}

TEST_CASE("The latch keeps the count until it is read") {
  Pit pit(true, 0);
  program(pit, 0, 2, 0x1234, 0);
  pit.write_port(0x43, 0x00, at(1));
  pit.write_port(0x43, 0x00, at(500));  // a second latch before the read is ignored
  CHECK(read_count(pit, 0, at(600)) == 0x1234);
  CHECK(read_count(pit, 0, at(601)) == 0x1234 - 600);
}

TEST_CASE("Read-back latches counts and status of several channels") {
  Pit pit(true, 0);
  program(pit, 0, 2, 1000, 0);
  pit.write_port(0x61, 0x01, 0);
  program(pit, 2, 0, 500, 0);
  pit.write_port(0x43, 0xca, at(101));          // count and status of channels 0 and 2
  CHECK(pit.read_port(0x40, at(900)) == 0xb4);  // OUT high, both bytes, mode 2
  CHECK(read_count(pit, 0, at(900)) == 900);
  CHECK(pit.read_port(0x42, at(900)) == 0x30);  // OUT low, both bytes, mode 0
  CHECK(read_count(pit, 2, at(900)) == 400);
  pit.write_port(0x43, 0xe2, at(901));  // status only
  CHECK(pit.read_port(0x40, at(950)) == 0xb4);
  CHECK(read_count(pit, 0, at(951)) == 50);
  pit.write_port(0x43, 0x34, at(960));
  pit.write_port(0x43, 0xe2, at(961));
  CHECK(pit.read_port(0x40, at(962)) == 0xf4);  // null count
}

TEST_CASE("The gate of channel 2 stops a mode 0 count") {
  Pit pit(true, 0);
  program(pit, 2, 0, 1000, 0);
  CHECK(read_count(pit, 2, at(5000)) == 1000);  // gate low: not counting
  pit.write_port(0x61, 0x01, at(5000));
  CHECK(read_count(pit, 2, at(5300)) == 700);
  pit.write_port(0x61, 0x00, at(5300));
  CHECK(read_count(pit, 2, at(9000)) == 700);
  CHECK((pit.read_port(0x61, at(9000)) & 0x20) == 0);
  pit.write_port(0x61, 0x03, at(9000));
  CHECK((pit.read_port(0x61, at(9699)) & 0x23) == 0x03);
  CHECK((pit.read_port(0x61, at(9700)) & 0x23) == 0x23);
}

TEST_CASE("The gate of channel 2 starts a mode 1 one-shot") {
  Pit pit(true, 0);
  program(pit, 2, 1, 100, 0);
  CHECK(pit.output(2, at(1000)));
  pit.write_port(0x61, 0x01, at(1000));
  CHECK_FALSE(pit.output(2, at(1001)));
  CHECK_FALSE(pit.output(2, at(1100)));
  CHECK(pit.output(2, at(1101)));
}

TEST_CASE("The gate of channel 2 restarts a mode 3 wave") {
  Pit pit(true, 0);
  pit.write_port(0x61, 0x01, 0);
  program(pit, 2, 3, 100, 0);
  CHECK_FALSE(pit.output(2, at(60)));
  pit.write_port(0x61, 0x00, at(60));
  CHECK(pit.output(2, at(60)));
  CHECK(pit.output(2, at(1234)));
  pit.write_port(0x61, 0x01, at(2000));
  CHECK(pit.output(2, at(2050)));
  CHECK_FALSE(pit.output(2, at(2051)));
}

// Linux arch/x86/kernel/tsc.c, pit_calibrate_tsc: 10 ms on channel 2 in mode 0, until bit 5 of port 0x61 is set.
TEST_CASE("Calibration by port 0x61 gives the right frequency") {
  Pit pit(true, 0);
  constexpr std::uint64_t kStart = 123'456'789;
  pit.write_port(0x61, 0x01, kStart);
  program(pit, 2, 0, static_cast<std::uint16_t>(kPitFrequency / 100), kStart);
  std::uint64_t now = kStart;
  while ((pit.read_port(0x61, now) & 0x20) == 0) now += 100;
  CHECK(now - kStart >= 9'999'000);
  CHECK(now - kStart <= 10'002'000);
}

// quick_pit_calibrate: the high byte of a count from 0xFFFF goes down each 256 clocks.
TEST_CASE("The high byte of channel 2 goes down each 256 clocks") {
  Pit pit(true, 0);
  pit.write_port(0x61, 0x01, 0);
  program(pit, 2, 0, 0xffff, 0);
  for (unsigned step = 0; step < 64; ++step) {
    const std::uint64_t last = at(1 + 256 * step + 255);
    CHECK(read_count(pit, 2, last) == 0xff00 - 256 * step);
    CHECK(read_count(pit, 2, at(1 + 256 * (step + 1))) == 0xfeff - 256 * step);
  }
}

TEST_CASE("The refresh bit toggles each 15 us") {
  Pit pit(true, 0);
  unsigned toggles = 0;
  unsigned last = pit.read_port(0x61, 0) & 0x10;
  for (std::uint64_t now = 0; now < 1'508'700; now += 100) {
    const unsigned refresh = pit.read_port(0x61, now) & 0x10;
    toggles += refresh != last ? 1U : 0U;
    last = refresh;
  }
  CHECK(toggles == 100);
}

TEST_CASE("Clocks stay exact after years") {
  Pit pit(true, 0);
  constexpr std::uint64_t kYear = 365ULL * 24 * 3600 * 1'000'000'000;
  program(pit, 0, 2, 0, 100 * kYear);
  const std::uint64_t first = pit.next_deadline();
  CHECK(first - 100 * kYear <= 54'926'240);  // 65537 clocks, less the part of one that had passed
  CHECK(first - 100 * kYear > 54'925'401);   // 65536 clocks
  CHECK(pit.advance(first));
  Pit late(true, 0);
  program(late, 0, 2, 0, kNever);  // no overflow at the end of time
  CHECK(late.next_deadline() == kNever);
}
