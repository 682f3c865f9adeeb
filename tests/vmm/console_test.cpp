#include <array>
#include <catch2/catch.hpp>
#include <chrono>
#include <csignal>
#include <fcntl.h>
#include <random>
#include <string>
#include <thread>
#include <unistd.h>

#include "base/error.hpp"
#include "base/unique_fd.hpp"
#include "vmm/console/console_input.hpp"
#include "vmm/console/console_keys.hpp"
#include "vmm/console/console_output.hpp"
#include "vmm/console/expect_matcher.hpp"
#include "vmm/console/serial_input.hpp"

using namespace sevisor;
using namespace sevisor::vmm;

namespace {

std::span<const std::byte> bytes_of(std::string_view text) { return std::as_bytes(std::span(text)); }

std::string text_of(const std::vector<std::byte>& bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// Length of the text up to the match when it comes in pieces of `piece` bytes.
std::optional<std::size_t> match_at(const std::string& pattern, std::string_view text, std::size_t piece) {
  ExpectMatcher matcher(pattern);
  for (std::size_t at = 0; at < text.size(); at += piece) {
    if (const auto length = matcher.feed(bytes_of(text.substr(at, piece)))) return at + *length;
  }
  return std::nullopt;
}

// The 16550's registers.
constexpr std::uint64_t kData = 0;
constexpr std::uint64_t kIer = 1;
constexpr std::uint64_t kFcr = 2;
constexpr std::uint64_t kLcr = 3;
constexpr std::uint64_t kMcr = 4;
constexpr std::uint64_t kLsr = 5;

struct Serial {
  devices::Uart16550 uart{{}, {}};
  SerialInput input{uart};

  void out(std::uint64_t offset, unsigned value) {
    const std::byte b{static_cast<unsigned char>(value)};
    input.write(offset, {&b, 1});
  }
  unsigned in(std::uint64_t offset) {
    std::byte b{};
    input.read(offset, {&b, 1});
    return std::to_integer<unsigned>(b);
  }
  void set_up() {
    out(kFcr, 0x01);
    out(kMcr, 0x08);
    out(kIer, 0x01);
  }
  std::string read_all() {
    std::string text;
    while (in(kLsr)&1) text.push_back(static_cast<char>(in(kData)));
    return text;
  }
};

struct Pipe {
  Pipe() {
    std::array<int, 2> ends{};
    REQUIRE(::pipe(ends.data()) == 0);
    reader = UniqueFd(ends[0]);
    writer = UniqueFd(ends[1]);
  }
  std::string read_some() const {
    std::string text(4096, '\0');
    const ssize_t got = ::read(reader.get(), text.data(), text.size());
    text.resize(got > 0 ? static_cast<std::size_t>(got) : 0);
    return text;
  }
  UniqueFd reader;
  UniqueFd writer;
};

}  // namespace

TEST_CASE("keys go to the guest; Ctrl-a starts a command") {
  ConsoleKeys keys;
  CHECK(text_of(keys.decode(bytes_of("ls\r")).input) == "ls\r");
  CHECK(text_of(keys.decode(bytes_of("a\x01\x01z")).input) == "a\x01z");
  CHECK(keys.decode(bytes_of("\x01h")).help);
  CHECK(keys.decode(bytes_of("\x01q")).input.empty());

  const auto quit = keys.decode(bytes_of("before\x01xafter"));
  CHECK(quit.quit);
  CHECK(text_of(quit.input) == "before");

  const auto brk =
      keys.decode(bytes_of("one\x01"
                           "btwo"));
  CHECK(brk.send_break);
  CHECK(text_of(brk.input) == "one");
  CHECK(text_of(brk.input_after_break) == "two");
}

TEST_CASE("a command may come in two reads") {
  ConsoleKeys keys;
  const auto first = keys.decode(bytes_of("a\x01"));
  CHECK(text_of(first.input) == "a");
  CHECK_FALSE(first.quit);
  CHECK(keys.decode(bytes_of("x")).quit);
}

TEST_CASE("an expected line is found, whole or unfinished, and nothing beyond line ends") {
  CHECK(match_at("login:", "Debian\r\nhost login: ", 100) == 19);
  CHECK(match_at("^/ # $", "boot\r\n/ # ", 100) == 10);
  CHECK(match_at("a.*z", "a\r\nz\r\n", 100) == std::nullopt);
  CHECK(match_at("^b", "ab\r\nb", 100) == 5);
  CHECK(match_at("foo$", "foobar\nfoo\n", 100) == 3);  // as it looked when its last byte had come
  CHECK(match_at("x", "", 1) == std::nullopt);
  CHECK(match_at("one two", "one\r two", 100) == 8);  // carriage returns are not part of a line
}

TEST_CASE("where a line matches does not depend on the pieces it comes in") {
  const std::string text =
      "Linux version 6.1.0-56\r\n[    0.0] Command line: console=ttyS0\r\n(initramfs) ls\r\nbin  dev\r\n# ";
  for (const char* pattern :
       {"version [0-9.]+", "console=(ttyS0|hvc0)", "^\\(initramfs\\) $", "\\bdev\\b", "^# ", "no"}) {
    const auto expected = match_at(pattern, text, 1);
    for (std::size_t piece = 2; piece <= text.size(); ++piece) {
      CAPTURE(pattern, piece);
      CHECK(match_at(pattern, text, piece) == expected);
    }
  }
  CHECK(match_at("no", text, 1) == std::nullopt);
  CHECK(match_at("version [0-9.]+", text, 1) == 15);
}

TEST_CASE("a pattern that the empty text matches is none to wait for") {
  for (const char* pattern : {"", ".*", "x*", "^", "$", "()", "(|a)", "a?"}) {
    CAPTURE(pattern);
    CHECK_THROWS_WITH(ExpectMatcher(pattern), Catch::Contains("matches"));
  }
}

TEST_CASE("a pattern takes the time that its text takes, whatever it is") {
  // Each of them makes a matcher that goes back in the text try as many ways as there are, which doubles by the byte.
  const std::string line(50'000, 'x');
  for (const char* pattern :
       {"(x+x+)+y", "(x|x)*y", "(x*)*y$", "^(x+)+$y", "(x?){200}x{200}y", "(.*x){12}y$", "\\B(x|xx)*y"}) {
    CAPTURE(pattern);
    const auto begin = std::chrono::steady_clock::now();
    CHECK(match_at(pattern, line.substr(0, 6000), 4096) == std::nullopt);
    CHECK(std::chrono::steady_clock::now() - begin < std::chrono::seconds(20));
  }
  CHECK(match_at("(x+x+)+y", line + "y", 4096) == line.size() + 1);
}

TEST_CASE("a costly pattern and much output do not hold up the end of a run") {
  RunState state;
  const std::vector<std::byte> output(600'000, std::byte{'x'});
  std::chrono::steady_clock::time_point ended;
  {
    const UniqueFd sink(::open("/dev/null", O_WRONLY | O_CLOEXEC));
    ConsoleOutput console(sink.get(), ExpectMatcher("\\B(.*x){40}y"), state);
    console.write(output);
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    ended = std::chrono::steady_clock::now();
    state.end({ExitCode::kTimedOut, "late"});
    console.release();
    console.finish();
    CHECK_FALSE(console.matched());
  }
  CHECK(std::chrono::steady_clock::now() - ended < std::chrono::seconds(10));  // and not as long as all of it takes
}

TEST_CASE("a line without end is looked at in parts") {
  const std::string text = std::string(3 * ExpectMatcher::kMaxLine, 'a') + "needle";
  CHECK(match_at("needle", text, 1000) == text.size());
  CHECK(match_at("needle", text, text.size()) == text.size());
}

TEST_CASE("what is no regular expression is refused") {
  for (const char* pattern : {"(", "[a", "*", "a{2", "\\"}) {
    CAPTURE(pattern);
    CHECK_THROWS_AS(ExpectMatcher(pattern), Error);
  }
}

TEST_CASE("input waits until the guest has set the port up") {
  Serial serial;
  const std::string early = "typed before the guest was there, and more than a FIFO holds\n";
  REQUIRE(serial.input.send(bytes_of(early)));
  CHECK((serial.in(kLsr)&1) == 0);

  // As Linux probes the port: all interrupts on for a look, loopback, FIFO on and off.
  serial.out(kIer, 0x0f);
  CHECK((serial.in(kLsr)&1) == 0);
  serial.out(kIer, 0x00);
  serial.out(kMcr, 0x1a);
  serial.out(kMcr, 0x00);
  serial.out(kLcr, 0x80);
  serial.out(kIer, 0x01);  // with the divisor latch the register is another
  serial.out(kLcr, 0x03);
  serial.out(kFcr, 0x01);
  serial.out(kFcr, 0x00);
  CHECK((serial.in(kLsr)&1) == 0);

  // As it opens it: FIFOs reset, interrupts on, and only then the FIFO, whose switch resets it once more.
  serial.out(kFcr, 0x07);
  serial.out(kFcr, 0x00);
  (void)serial.in(kData);
  serial.out(kMcr, 0x08);
  serial.out(kIer, 0x05);
  serial.out(kFcr, 0x01);
  serial.out(kFcr, 0x81);
  CHECK(serial.read_all() == early);
  REQUIRE(serial.input.send(bytes_of("late")));
  CHECK(serial.read_all() == "late");
}

TEST_CASE("a reset of the FIFO loses no input") {
  Serial serial;
  serial.set_up();
  const std::string text = "abcdefghijklmnopqrstuvwxyz";
  REQUIRE(serial.input.send(bytes_of(text)));
  CHECK(serial.in(kData) == 'a');
  serial.out(kFcr, 0x07);
  CHECK(serial.in(kData) == 'b');
  serial.out(kFcr, 0x00);
  CHECK(serial.in(kData) == 'c');
  serial.out(kFcr, 0x01);
  CHECK(serial.read_all() == text.substr(3));
}

TEST_CASE("a guest that polls without interrupts gets its input too") {
  Serial serial;
  REQUIRE(serial.input.send(bytes_of("typed")));
  for (int i = 0; i < 1000; ++i) {  // prints: a status read for each byte
    (void)serial.in(kLsr);
    serial.out(kData, 'x');
  }
  CHECK((serial.in(kLsr)&1) == 0);
  for (unsigned i = 0; i < SerialInput::kPollsForReady; ++i) (void)serial.in(kLsr);
  CHECK(serial.read_all() == "typed");
}

TEST_CASE("more input than the port holds arrives whole and in order") {
  Serial serial;
  std::string sent;
  for (unsigned i = 0; sent.size() < 200'000; ++i) sent += std::to_string(i) + ' ';
  serial.set_up();
  std::thread sender([&] { (void)serial.input.send(bytes_of(sent)); });
  std::string got;
  while (got.size() < sent.size()) got += serial.read_all();
  sender.join();
  CHECK(got == sent);
}

TEST_CASE("a waiting sender is let go when the run ends") {
  Serial serial;
  const std::string much(2 * SerialInput::kMaxPending, 'x');
  bool taken = true;
  std::thread sender([&] { taken = serial.input.send(bytes_of(much)); });
  serial.input.close();
  sender.join();
  CHECK_FALSE(taken);
}

TEST_CASE("console input: a pipe is passed on whole, keys are obeyed only on a terminal") {
  Serial serial;
  serial.set_up();
  RunState state;
  Pipe pipe;
  const ConsoleInput input(pipe.reader.get(), false, serial.input, state);
  REQUIRE(::write(pipe.writer.get(), "a\x01x", 3) == 3);
  pipe.writer.reset();
  std::string got;
  while (got.size() < 3) got += serial.read_all();
  CHECK(got == "a\x01x");
  CHECK_FALSE(state.ended());
}

TEST_CASE("console input: Ctrl-a x ends the run") {
  Serial serial;
  RunState state;
  Pipe pipe;
  {
    const ConsoleInput input(pipe.reader.get(), true, serial.input, state);
    REQUIRE(::write(pipe.writer.get(), "\x01x", 2) == 2);
    while (!state.ended()) std::this_thread::yield();
  }
  CHECK(state.outcome()->code == 0);
}

TEST_CASE("console output reaches the descriptor, and ends with the match") {
  RunState state;
  Pipe pipe;
  ConsoleOutput output(pipe.writer.get(), ExpectMatcher("ready"), state);
  output.write(bytes_of("booting\r\nsystem re"));
  output.write(bytes_of("ady now\r\n"));
  output.finish();
  CHECK(output.matched());
  CHECK(state.outcome()->code == 0);
  CHECK(pipe.read_some() == "booting\r\nsystem ready");
}

TEST_CASE("console output that nobody reads any more ends the run") {
  (void)::signal(SIGPIPE, SIG_IGN);
  RunState state;
  Pipe pipe;
  pipe.reader.reset();
  ConsoleOutput output(pipe.writer.get(), std::nullopt, state);
  output.write(bytes_of("text"));
  output.finish();
  REQUIRE(state.outcome());
  CHECK(state.outcome()->code == 141);
}

TEST_CASE("a reader that sleeps holds up the guest, not the end of the run") {
  RunState state;
  const Pipe pipe;
  ConsoleOutput output(pipe.writer.get(), std::nullopt, state);
  const std::string much(ConsoleOutput::kMaxPending, 'x');
  output.write(bytes_of(much));
  std::thread guest([&] {
    output.write(bytes_of(much));
    output.write(bytes_of(much));
  });
  state.end({ExitCode::kTimedOut, "test"});
  output.release();
  guest.join();
  output.finish();
  CHECK(state.outcome()->code == 36);
}
