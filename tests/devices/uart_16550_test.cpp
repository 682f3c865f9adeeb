#include "devices/uart_16550.hpp"

#include <catch2/catch.hpp>
#include <string>
#include <thread>

#include "tests/devices/helpers.hpp"

namespace sevisor::devices::test {
namespace {

// Offsets (PC16550D datasheet, table II).
constexpr std::uint64_t kRbr = 0;
constexpr std::uint64_t kThr = 0;
constexpr std::uint64_t kIer = 1;
constexpr std::uint64_t kIir = 2;
constexpr std::uint64_t kFcr = 2;
constexpr std::uint64_t kLcr = 3;
constexpr std::uint64_t kMcr = 4;
constexpr std::uint64_t kLsr = 5;
constexpr std::uint64_t kMsr = 6;
constexpr std::uint64_t kScr = 7;

struct Bench {
  IrqProbe irq;
  std::string sent;
  Uart16550 uart{irq.line(), [this](std::span<const std::byte> bytes) {
                   for (const std::byte byte : bytes) sent.push_back(static_cast<char>(byte));
                 }};
};

std::string read_text(Uart16550& uart, std::size_t size) {
  std::string text;
  for (std::size_t i = 0; i < size; ++i) text.push_back(static_cast<char>(in(uart, kRbr)));
  return text;
}

TEST_CASE("16550: state after reset") {
  Bench b;
  CHECK(in(b.uart, kIer) == 0x00);
  CHECK(in(b.uart, kIir) == 0x01);  // no interrupt, no FIFOs
  CHECK(in(b.uart, kLcr) == 0x00);
  CHECK(in(b.uart, kMcr) == 0x00);
  CHECK(in(b.uart, kLsr) == 0x60);  // transmitter empty
  CHECK(in(b.uart, kMsr) == 0xb0);  // CTS, DSR, DCD: somebody is there
  CHECK_FALSE(b.irq.level);
}

TEST_CASE("16550: what is written goes out in order") {
  Bench b;
  for (const char c : std::string("hi!")) out8(b.uart, kThr, static_cast<std::uint8_t>(c));
  b.uart.write_string(kThr, 1, bytes_of(" there"));
  CHECK(b.sent == "hi! there");
  CHECK(in(b.uart, kLsr) == 0x60);
}

TEST_CASE("16550: the divisor latch hides data and IER") {
  Bench b;
  out8(b.uart, kIer, 0x05);
  out8(b.uart, kLcr, 0x83);
  out8(b.uart, 0, 0x34);
  out8(b.uart, 1, 0x12);
  b.uart.write_string(0, 1, bytes_of("45"));  // the last one stays
  CHECK(in(b.uart, 0) == '5');
  CHECK(in(b.uart, 1) == 0x12);
  out8(b.uart, kLcr, 0x03);
  CHECK(in(b.uart, kIer) == 0x05);
  CHECK(in(b.uart, kLcr) == 0x03);
  CHECK(b.sent.empty());
}

TEST_CASE("16550: scratch register holds a byte, IER only its four bits") {
  Bench b;
  out8(b.uart, kScr, 0x5a);
  CHECK(in(b.uart, kScr) == 0x5a);
  out8(b.uart, kIer, 0xff);
  CHECK(in(b.uart, kIer) == 0x0f);
  out8(b.uart, kMcr, 0xff);
  CHECK(in(b.uart, kMcr) == 0x1f);
}

TEST_CASE("16550: IIR shows whether the FIFOs are on") {
  Bench b;
  out8(b.uart, kFcr, 0x01);
  CHECK(in(b.uart, kIir) == 0xc1);
  out8(b.uart, kFcr, 0x00);
  CHECK(in(b.uart, kIir) == 0x01);
  out8(b.uart, kFcr, 0xc0);  // bits without the enable bit are not programmed
  CHECK(in(b.uart, kIir) == 0x01);
}

TEST_CASE("16550: transmitter interrupt") {
  Bench b;
  out8(b.uart, kIer, 0x02);  // the transmitter is empty already
  CHECK(b.irq.level);
  CHECK(in(b.uart, kIir) == 0x02);  // reading it clears the source
  CHECK_FALSE(b.irq.level);
  CHECK(in(b.uart, kIir) == 0x01);

  out8(b.uart, kThr, 'x');
  CHECK(b.irq.level);
  CHECK(b.irq.rises == 2);
  CHECK(in(b.uart, kIir) == 0x02);
  // Linux's test for chips that lose this interrupt: off and on again must raise it anew.
  out8(b.uart, kIer, 0x00);
  out8(b.uart, kIer, 0x02);
  CHECK(in(b.uart, kIir) == 0x02);
  // Writing the same enable bits does not.
  out8(b.uart, kIer, 0x02);
  CHECK(in(b.uart, kIir) == 0x01);

  b.uart.write_string(kThr, 1, bytes_of("yz"));
  CHECK(in(b.uart, kIir) == 0x02);
  CHECK(b.sent == "xyz");
}

TEST_CASE("16550: a pending transmitter interrupt keeps the line up until it is read") {
  Bench b;
  out8(b.uart, kIer, 0x02);
  out8(b.uart, kThr, 'a');
  out8(b.uart, kThr, 'b');
  CHECK(b.irq.level);
  CHECK(b.irq.rises == 1);
}

TEST_CASE("16550: receiving without FIFOs, one character at a time") {
  Bench b;
  out8(b.uart, kIer, 0x01);
  CHECK(b.uart.push(bytes_of("ab")) == 2);
  CHECK(b.irq.level);
  CHECK(in(b.uart, kIir) == 0x04);
  CHECK(in(b.uart, kLsr) == 0x61);
  CHECK(in(b.uart, kRbr) == 'a');
  CHECK(in(b.uart, kLsr) == 0x61);  // the next one moved up
  CHECK(in(b.uart, kRbr) == 'b');
  CHECK(in(b.uart, kLsr) == 0x60);
  CHECK_FALSE(b.irq.level);
  CHECK(in(b.uart, kRbr) == 0);
}

TEST_CASE("16550: trigger levels and the character time-out") {
  Bench b;
  const unsigned levels[] = {1, 4, 8, 14};
  for (unsigned code = 0; code < 4; ++code) {
    out8(b.uart, kFcr, 0x03 | (code << 6U));
    out8(b.uart, kIer, 0x01);
    for (unsigned count = 1; count <= 16; ++count) {
      CHECK(b.uart.push(bytes_of("x")) == 1);
      CHECK(in(b.uart, kIir) == (count >= levels[code] ? 0xc4 : 0xcc));
      CHECK(b.irq.level);
    }
    for (unsigned count = 16; count >= 1; --count) {
      CHECK(in(b.uart, kIir) == (count >= levels[code] ? 0xc4 : 0xcc));
      CHECK(in(b.uart, kRbr) == 'x');
    }
    CHECK(in(b.uart, kIir) == 0xc1);
    CHECK_FALSE(b.irq.level);
  }
}

TEST_CASE("16550: input waits behind the FIFO and never overruns it") {
  Bench b;
  out8(b.uart, kFcr, 0x01);
  const std::string text(Uart16550::kBacklogSize + 100, 'q');
  CHECK(b.uart.can_accept() == Uart16550::kBacklogSize);
  CHECK(b.uart.push(bytes_of(text)) == Uart16550::kBacklogSize);
  CHECK(b.uart.can_accept() == Uart16550::kFifoSize);  // the FIFO took its share
  CHECK(b.uart.push(bytes_of(text)) == Uart16550::kFifoSize);
  CHECK(b.uart.can_accept() == 0);
  CHECK(b.uart.push(bytes_of("x")) == 0);
  CHECK_FALSE(b.uart.push_break());
  for (std::size_t i = 0; i < Uart16550::kBacklogSize + Uart16550::kFifoSize; ++i) {
    REQUIRE(in(b.uart, kLsr) == 0x61);
    REQUIRE(in(b.uart, kRbr) == 'q');
  }
  CHECK(in(b.uart, kLsr) == 0x60);
}

TEST_CASE("16550: clearing the receive FIFO drops what is in it") {
  Bench b;
  out8(b.uart, kFcr, 0x01);
  b.uart.push(bytes_of("0123456789abcdefgh"));
  out8(b.uart, kFcr, 0x03);
  CHECK(in(b.uart, kRbr) == 'g');
  CHECK(in(b.uart, kRbr) == 'h');
  CHECK(in(b.uart, kLsr) == 0x60);
  b.uart.push(bytes_of("i"));
  out8(b.uart, kFcr, 0x00);  // so does changing the mode
  CHECK(in(b.uart, kLsr) == 0x60);
}

TEST_CASE("16550: loopback joins the modem lines and the data path") {
  Bench b;
  b.uart.push(bytes_of("early"));
  out8(b.uart, kFcr, 0x03);
  while ((in(b.uart, kLsr) & 1U) != 0) (void)in(b.uart, kRbr);
  out8(b.uart, kMcr, 0x10);
  CHECK((in(b.uart, kMsr) & 0xf0) == 0x00);
  out8(b.uart, kMcr, 0x11);
  CHECK((in(b.uart, kMsr) & 0xf0) == 0x20);  // DTR to DSR
  out8(b.uart, kMcr, 0x12);
  CHECK((in(b.uart, kMsr) & 0xf0) == 0x10);  // RTS to CTS
  out8(b.uart, kMcr, 0x14);
  CHECK((in(b.uart, kMsr) & 0xf0) == 0x40);  // OUT1 to RI
  out8(b.uart, kMcr, 0x1a);
  CHECK((in(b.uart, kMsr) & 0xf0) == 0x90);  // what Linux tests: OUT2 to DCD, RTS to CTS

  b.uart.push(bytes_of("outside"));  // not connected now
  out8(b.uart, kThr, 0x42);
  CHECK(b.sent.empty());
  CHECK(in(b.uart, kLsr) == 0x61);
  CHECK(in(b.uart, kRbr) == 0x42);
  CHECK(in(b.uart, kLsr) == 0x60);
  b.uart.write_string(kThr, 1, bytes_of("loop"));
  CHECK(b.sent.empty());
  CHECK(read_text(b.uart, 4) == "loop");
  out8(b.uart, kMcr, 0x00);
  CHECK(read_text(b.uart, 7) == "outside");
}

TEST_CASE("16550: overrun in loopback") {
  Bench b;
  out8(b.uart, kMcr, 0x10);
  out8(b.uart, kIer, 0x04);
  out8(b.uart, kThr, 'a');
  CHECK_FALSE(b.irq.level);
  out8(b.uart, kThr, 'b');
  CHECK(b.irq.level);
  CHECK(in(b.uart, kIir) == 0x06);
  CHECK(in(b.uart, kLsr) == 0x63);
  CHECK(in(b.uart, kLsr) == 0x61);  // reading clears it
  CHECK_FALSE(b.irq.level);
  CHECK(in(b.uart, kRbr) == 'b');  // without FIFOs the newer one stays

  out8(b.uart, kFcr, 0x03);
  for (unsigned i = 0; i < 17; ++i) out8(b.uart, kThr, 'A' + i);
  CHECK(in(b.uart, kLsr) == 0x63);
  for (unsigned i = 0; i < 16; ++i) CHECK(in(b.uart, kRbr) == 'A' + i);  // with them the older ones
  CHECK(in(b.uart, kLsr) == 0x60);
}

TEST_CASE("16550: modem status deltas and their interrupt") {
  Bench b;
  out8(b.uart, kIer, 0x08);
  out8(b.uart, kMcr, 0x10);  // CTS, DSR, DCD drop
  CHECK(b.irq.level);
  CHECK(in(b.uart, kIir) == 0x00);
  CHECK(in(b.uart, kMsr) == 0x0b);
  CHECK_FALSE(b.irq.level);
  CHECK(in(b.uart, kMsr) == 0x00);
  out8(b.uart, kMcr, 0x14);  // RI rises: no delta
  CHECK_FALSE(b.irq.level);
  CHECK(in(b.uart, kMsr) == 0x40);
  out8(b.uart, kMcr, 0x10);  // its trailing edge counts
  CHECK(in(b.uart, kMsr) == 0x04);
}

TEST_CASE("16550: interrupts by priority") {
  Bench b;
  out8(b.uart, kFcr, 0x01);
  out8(b.uart, kIer, 0x0f);
  out8(b.uart, kMcr, 0x10);
  out8(b.uart, kMcr, 0x00);
  b.uart.push_break();
  CHECK(in(b.uart, kIir) == 0xc6);
  CHECK(in(b.uart, kLsr) == 0xf1);  // break, error in the FIFO, data ready
  CHECK(in(b.uart, kIir) == 0xc4);
  CHECK(in(b.uart, kRbr) == 0);
  CHECK(in(b.uart, kIir) == 0xc2);
  CHECK(in(b.uart, kIir) == 0xc0);
  CHECK(in(b.uart, kMsr) == 0xbb);
  CHECK(in(b.uart, kIir) == 0xc1);
  CHECK_FALSE(b.irq.level);
}

TEST_CASE("16550: a break shows at its place in the FIFO") {
  Bench b;
  out8(b.uart, kFcr, 0x01);
  b.uart.push(bytes_of("a"));
  b.uart.push_break();
  b.uart.push(bytes_of("h"));
  CHECK(in(b.uart, kLsr) == 0xe1);  // behind the first character: only the FIFO-error bit
  CHECK(in(b.uart, kRbr) == 'a');
  CHECK(in(b.uart, kLsr) == 0xf1);
  CHECK(in(b.uart, kLsr) == 0x61);
  CHECK(in(b.uart, kRbr) == 0);
  CHECK(in(b.uart, kRbr) == 'h');
}

TEST_CASE("16550: input from another thread arrives whole and in order") {
  Bench b;
  out8(b.uart, kFcr, 0x01);
  constexpr unsigned kCount = 20000;
  std::thread console([&] {
    for (unsigned i = 0; i < kCount;) {
      const std::byte byte{static_cast<std::uint8_t>(i)};
      if (b.uart.push({&byte, 1}) == 1) {
        ++i;
      } else {
        std::this_thread::yield();
      }
    }
  });
  unsigned wrong = 0;
  for (unsigned i = 0; i < kCount;) {
    if ((in(b.uart, kLsr) & 1U) == 0) {
      std::this_thread::yield();
      continue;
    }
    if (in(b.uart, kRbr) != static_cast<std::uint8_t>(i)) ++wrong;
    ++i;
  }
  console.join();
  CHECK(wrong == 0);
}

}  // namespace
}  // namespace sevisor::devices::test
