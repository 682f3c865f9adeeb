#include "firmware/console.hpp"

#include "firmware/cpu.hpp"

namespace sevisor::firmware {

namespace {
// 16550 registers (National Semiconductor PC16550D data sheet, section 8).
constexpr std::uint16_t kBase = 0x3f8;
constexpr std::uint16_t kData = kBase;
constexpr std::uint16_t kInterruptEnable = kBase + 1;
constexpr std::uint16_t kFifoControl = kBase + 2;
constexpr std::uint16_t kLineControl = kBase + 3;
constexpr std::uint16_t kModemControl = kBase + 4;
constexpr std::uint16_t kLineStatus = kBase + 5;
constexpr std::uint8_t kDivisorLatch = 0x80;
constexpr std::uint8_t kEightBits = 0x03;
constexpr std::uint8_t kFifoOnAndClear = 0x07;
constexpr std::uint8_t kDtrRts = 0x03;
constexpr std::uint8_t kTransmitterEmpty = 0x20;
constexpr int kPollLimit = 1000;  // a port that never gets ready is not there

void put(char c) noexcept {
  for (int i = 0; i < kPollLimit; ++i) {
    if ((in8(kLineStatus) & kTransmitterEmpty) != 0) break;
  }
  out8(kData, static_cast<std::uint8_t>(c));
}
}  // namespace

void console_open() noexcept {
  out8(kInterruptEnable, 0);
  out8(kLineControl, kDivisorLatch | kEightBits);
  out8(kData, 1);  // divisor 1: 115200 baud
  out8(kInterruptEnable, 0);
  out8(kLineControl, kEightBits);
  out8(kFifoControl, kFifoOnAndClear);
  out8(kModemControl, kDtrRts);
}

void print(const char* text) noexcept {
  for (; *text != 0; ++text) {
    if (*text == '\n') put('\r');
    put(*text);
  }
}

void print(std::uint64_t value) noexcept {
  char digits[20];
  int count = 0;
  do {
    digits[count++] = static_cast<char>('0' + value % 10);
    value /= 10;
  } while (value != 0);
  while (count > 0) put(digits[--count]);
}

void print(Hex number) noexcept {
  print("0x");
  int shift = 60;
  while (shift > 0 && number.value >> shift == 0) shift -= 4;
  for (; shift >= 0; shift -= 4) put("0123456789abcdef"[number.value >> shift & 0xf]);
}

}  // namespace sevisor::firmware
