// The 16550 against any sequence of accesses, with what must hold at every moment.
#include <algorithm>
#include <string>

#include "check.hpp"
#include "devices/uart_16550.hpp"
#include "input.hpp"

namespace {

using namespace sevisor::devices;  // NOLINT(google-build-using-namespace)
using sevisor::fuzz::Input;

struct Bench {
  bool level = false;
  std::string sent;
  std::string expected;
  std::uint8_t lcr = 0;
  std::uint8_t mcr = 0;
  Uart16550 uart{[this](bool now) {
                   FUZZ_CHECK(now != level);  // only changes are reported
                   level = now;
                 },
                 [this](std::span<const std::byte> bytes) {
                   for (const std::byte byte : bytes) sent.push_back(static_cast<char>(byte));
                 }};

  [[nodiscard]] std::uint8_t in(std::uint64_t offset) {
    std::byte byte;
    uart.read(offset, {&byte, 1});
    return std::to_integer<std::uint8_t>(byte);
  }

  void out(std::uint64_t offset, std::uint8_t value) {
    if (offset == 0 && (lcr & 0x80U) == 0 && (mcr & 0x10U) == 0) expected.push_back(static_cast<char>(value));
    if (offset == 3) lcr = value;
    if (offset == 4) mcr = value;
    const std::byte byte{value};
    uart.write(offset, {&byte, 1});
  }

  void check() {
    FUZZ_CHECK(sent == expected);
    FUZZ_CHECK(uart.can_accept() <= Uart16550::kBacklogSize);
    // The line is up exactly when the identification register names a source.
    const bool pending = (in(2) & 1U) == 0;
    const bool was_up = level_before_check;
    FUZZ_CHECK(pending == was_up);
    FUZZ_CHECK((in(5) & 0x60U) == 0x60);
    FUZZ_CHECK((in(4) & 0xe0U) == 0);
  }

  // Reading the identification register may lower the line.
  bool level_before_check = false;
  void remember() { level_before_check = level; }
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Input input(data, size);
  Bench bench;
  while (!input.empty()) {
    const auto what = input.take<std::uint8_t>();
    const std::uint64_t offset = what & 7U;
    switch (what >> 3U & 7U) {
      case 0:
      case 1:
        (void)bench.in(offset);
        break;
      case 2:
      case 3:
        bench.out(offset, input.take<std::uint8_t>());
        break;
      case 4: {
        const auto bytes = input.bytes(what >> 6U == 3 ? 64 : offset);
        const std::size_t room = bench.uart.can_accept();
        FUZZ_CHECK(bench.uart.push(bytes) == std::min(bytes.size(), room));
        break;
      }
      case 5:
        FUZZ_CHECK(bench.uart.push_break() || bench.uart.can_accept() == 0);
        break;
      case 6: {
        const auto bytes = input.bytes(offset);
        if ((bench.lcr & 0x80U) == 0 && (bench.mcr & 0x10U) == 0) {
          for (const std::byte byte : bytes) bench.expected.push_back(static_cast<char>(byte));
        }
        bench.uart.write_string(0, 1, bytes);
        break;
      }
      default:
        bench.remember();
        bench.check();
        break;
    }
  }
  bench.remember();
  bench.check();
  // However it was left, a guest can set it up anew and read what waits.
  bench.out(3, 0);
  bench.out(4, 0);
  bench.out(1, 0);
  bench.out(2, 0x03);
  FUZZ_CHECK(!bench.level);
  for (std::size_t i = 0; i <= Uart16550::kBacklogSize + Uart16550::kFifoSize && (bench.in(5) & 1U) != 0; ++i)
    (void)bench.in(0);
  FUZZ_CHECK((bench.in(5) & 0x83U) == 0);
  FUZZ_CHECK(bench.uart.can_accept() == Uart16550::kBacklogSize);
  return 0;
}
