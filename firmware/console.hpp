// The firmware's voice: lines on the 16550 at 0x3f8 (COM1; National Semiconductor PC16550D data sheet). Under SEV-ES
// each access goes through the #VC handler.
#pragma once

#include <cstddef>
#include <cstdint>

namespace sevisor::firmware {

// 115200 baud, 8 data bits, no parity, one stop bit; no interrupts.
void console_open() noexcept;

struct Hex {
  std::uint64_t value;
};

// A line under construction; what is too long is cut.
class Line {
 public:
  void add(const char* text) noexcept;
  void add(std::uint64_t value) noexcept;
  void add(Hex value) noexcept;  // with 0x
  // Prints it with CR LF, as many characters at a time as the FIFO takes.
  void print() noexcept;

 private:
  void put(char c) noexcept;

  static constexpr std::size_t kLimit = 158;
  char text_[kLimit + 2];
  std::size_t length_ = 0;
};

template <class... Parts>
void print_line(const Parts&... parts) noexcept {
  Line line;
  line.add("sevisor firmware: ");
  (line.add(parts), ...);
  line.print();
}

}  // namespace sevisor::firmware
