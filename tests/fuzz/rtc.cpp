// The real-time clock against any sequence of accesses while time passes.
#include "check.hpp"
#include "devices/rtc_cmos.hpp"
#include "input.hpp"

namespace {

using namespace sevisor::devices;  // NOLINT(google-build-using-namespace)
using sevisor::fuzz::Input;

class ManualClock final : public Clock {
 public:
  std::uint64_t now_ns() override { return now; }
  std::uint64_t now = 0;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Input input(data, size);
  ManualClock clock;
  bool level = false;
  RtcCmos rtc(clock, {input.take<std::uint32_t>(), 1ULL << 30U, 0}, [&](bool now) { level = now; });
  const auto out = [&](std::uint64_t offset, std::uint8_t value) {
    const std::byte byte{value};
    rtc.write(offset, {&byte, 1});
  };
  const auto in = [&](std::uint8_t index) {
    out(0, index);
    std::byte byte;
    rtc.read(1, {&byte, 1});
    return std::to_integer<std::uint8_t>(byte);
  };
  while (!input.empty()) {
    switch (input.take<std::uint8_t>() % 6) {
      case 0:
        (void)in(input.take<std::uint8_t>());
        break;
      case 1:
        out(0, input.take<std::uint8_t>() & 0x0fU);
        out(1, input.take<std::uint8_t>());
        break;
      case 2:
        out(0, input.take<std::uint8_t>());
        out(1, input.take<std::uint8_t>());
        break;
      case 3:
        clock.now += input.take<std::uint32_t>();
        break;
      case 4:
        clock.now += std::uint64_t{input.take<std::uint16_t>()} * kNsPerSecond;
        break;
      default: {
        const auto next = rtc.next_event_ns();
        if (!next) break;
        FUZZ_CHECK(!level);
        FUZZ_CHECK(*next > clock.now);
        clock.now = *next - 1;
        rtc.poll();
        FUZZ_CHECK(!level);
        clock.now = *next;
        rtc.poll();
        FUZZ_CHECK(level);
        FUZZ_CHECK((in(0x0c) & 0x80U) != 0);
        FUZZ_CHECK(!level);
        break;
      }
    }
  }
  // Set up anew, it keeps time: seconds in BCD that count.
  out(0, 0x0a);
  out(1, 0x26);
  out(0, 0x0b);
  out(1, 0x02);
  const std::uint8_t before = in(0);
  clock.now += kNsPerSecond;
  const std::uint8_t after = in(0);
  FUZZ_CHECK((before & 0xfU) <= 9 && before <= 0x59);
  FUZZ_CHECK(after == (before == 0x59 ? 0 : (before & 0xfU) == 9 ? before + 7 : before + 1));
  return 0;
}
