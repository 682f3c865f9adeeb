// The firmware's voice: lines on the 16550 at 0x3f8 (COM1). Under SEV-ES each access goes through the #VC handler.
#pragma once

#include <cstdint>

namespace sevisor::firmware {

// 115200 baud, 8 data bits, no parity, one stop bit; no interrupts.
void console_open() noexcept;

struct Hex {
  std::uint64_t value;
};

void print(const char* text) noexcept;  // "\n" becomes CR LF
void print(std::uint64_t value) noexcept;
void print(Hex value) noexcept;  // with 0x

template <class... Parts>
void print_line(const Parts&... parts) noexcept {
  print("sevisor firmware: ");
  (print(parts), ...);
  print("\n");
}

}  // namespace sevisor::firmware
