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

constexpr std::size_t kFifoBytes = 16;

void wait_until_empty() noexcept {
  for (int i = 0; i < kPollLimit; ++i) {
    if ((in8(kLineStatus) & kTransmitterEmpty) != 0) return;
  }
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

void Line::put(char c) noexcept {
  if (length_ < kLimit) text_[length_++] = c;
}

void Line::add(const char* text) noexcept {
  while (*text != 0) put(*text++);
}

void Line::add(std::uint64_t value) noexcept {
  char digits[20];
  int count = 0;
  do {
    digits[count++] = static_cast<char>('0' + value % 10);
    value /= 10;
  } while (value != 0);
  while (count > 0) put(digits[--count]);
}

void Line::add(Hex number) noexcept {
  add("0x");
  int shift = 60;
  while (shift > 0 && number.value >> shift == 0) shift -= 4;
  for (; shift >= 0; shift -= 4) put("0123456789abcdef"[number.value >> shift & 0xf]);
}

void Line::print() noexcept {
  text_[length_++] = '\r';
  text_[length_++] = '\n';
  for (std::size_t at = 0; at < length_; at += kFifoBytes) {
    wait_until_empty();
    out8_string(kData, text_ + at, length_ - at < kFifoBytes ? length_ - at : kFifoBytes);
  }
}

}  // namespace sevisor::firmware
