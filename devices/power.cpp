#include "devices/power.hpp"

#include <algorithm>
#include <utility>

namespace sevisor::devices {

namespace {
// PM1 control register (ACPI 6.4, table 4.16), its second byte: SLP_TYPx in bits 12:10, SLP_EN in bit 13, which reads
// as 0.
constexpr std::uint64_t kPm1ControlHigh = kPm1ControlOffset + 1;
constexpr std::uint8_t kSleepTypeMask = 0x1c;
constexpr unsigned kSleepTypeShift = 2;
constexpr std::uint8_t kSleepEnable = 0x20;
constexpr std::uint8_t kSciEnabled = 0x01;  // bit 0 of the first byte
constexpr std::uint64_t kPm1Enable = 2;     // offset of the enable register
constexpr std::uint64_t kPm1StatusHigh = 1;
constexpr std::uint8_t kPowerButton = 0x01;  // bit 8 of status and enable register (ACPI 6.4, tables 4.13 and 4.14)

constexpr std::uint8_t kResetCpu = 0x04;  // RST_CPU of the reset control register
constexpr std::uint8_t kFastReset = 0x01;
constexpr std::uint8_t kA20Open = 0x02;

// 8042 commands F0-FF pulse the output lines whose bit is 0; line 0 is the CPU's reset.
constexpr std::uint8_t kPulseOutputs = 0xf0;
constexpr std::uint8_t kResetLine = 0x01;

std::uint8_t first_byte(std::span<const std::byte> from) noexcept { return std::to_integer<std::uint8_t>(from[0]); }

void answer(std::span<std::byte> to, std::uint8_t value) noexcept {
  std::ranges::fill(to, std::byte{0});
  to[0] = std::byte{value};
}

void report(const MachineEventSink& sink, MachineEvent event) {
  if (sink) sink(event);
}
}  // namespace

void Pm1Registers::read(std::uint64_t offset, std::span<std::byte> to) {
  const std::lock_guard lock(mutex_);
  for (std::size_t i = 0; i < to.size(); ++i) {
    std::uint8_t value = values_[offset + i];
    if (offset + i == kPm1ControlOffset) value |= kSciEnabled;
    to[i] = std::byte{value};
  }
}

void Pm1Registers::write(std::uint64_t offset, std::span<const std::byte> from) {
  bool off = false;
  {
    const std::lock_guard lock(mutex_);
    for (std::size_t i = 0; i < from.size(); ++i) {
      const std::uint64_t at = offset + i;
      const auto value = std::to_integer<std::uint8_t>(from[i]);
      if (at < kPm1Enable) {  // status: a 1 clears
        values_[at] = static_cast<std::uint8_t>(values_[at] & ~value);
      } else if (at == kPm1ControlHigh) {
        values_[at] = static_cast<std::uint8_t>(value & ~kSleepEnable);
        // There is no other state in the DSDT.
        off = (value & kSleepEnable) != 0 && (value & kSleepTypeMask) >> kSleepTypeShift == kSleepTypeS5;
      } else {
        values_[at] = value;
      }
    }
    update_sci();
  }
  if (off) report(sink_, {MachineEvent::Kind::kPowerOff, 0});
}

void Pm1Registers::press_power_button() {
  const std::lock_guard lock(mutex_);
  values_[kPm1StatusHigh] |= kPowerButton;
  update_sci();
}

void Pm1Registers::update_sci() {
  bool level = false;
  for (std::size_t i = 0; i < kPm1Enable; ++i) level = level || (values_[i] & values_[kPm1Enable + i]) != 0;
  if (level == std::exchange(sci_level_, level) || !sci_) return;
  sci_(level);
}

void ResetRegister::read(std::uint64_t /*offset*/, std::span<std::byte> to) {
  answer(to, value_.load(std::memory_order_relaxed));
}

void ResetRegister::write(std::uint64_t /*offset*/, std::span<const std::byte> from) {
  const std::uint8_t value = first_byte(from);
  value_.store(static_cast<std::uint8_t>(value & ~kResetCpu), std::memory_order_relaxed);
  if ((value & kResetCpu) != 0) report(sink_, {MachineEvent::Kind::kReset, 0});
}

void SystemControlA::read(std::uint64_t /*offset*/, std::span<std::byte> to) {
  answer(to, static_cast<std::uint8_t>(value_.load(std::memory_order_relaxed) | kA20Open));
}

void SystemControlA::write(std::uint64_t /*offset*/, std::span<const std::byte> from) {
  const std::uint8_t value = first_byte(from);
  const std::uint8_t before = value_.exchange(value, std::memory_order_relaxed);
  if ((value & ~before & kFastReset) != 0) report(sink_, {MachineEvent::Kind::kReset, 0});
}

void I8042Stub::read(std::uint64_t /*offset*/, std::span<std::byte> to) { answer(to, 0); }

void I8042Stub::write(std::uint64_t offset, std::span<const std::byte> from) {
  if (offset != kCommandOffset) return;
  const std::uint8_t command = first_byte(from);
  if ((command & kPulseOutputs) == kPulseOutputs && (command & kResetLine) == 0) {
    report(sink_, {MachineEvent::Kind::kReset, 0});
  }
}

}  // namespace sevisor::devices
