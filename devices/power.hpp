// Power-off and reset: the registers by which a guest ends its machine. None of them holds up the vCPU.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <mutex>
#include <span>

#include "devices/bus.hpp"
#include "devices/irq_line.hpp"
#include "devices/machine_event.hpp"

namespace sevisor::devices {

inline constexpr std::uint64_t kPm1Port = 0x600;       // QEMU's Q35: PM base 0x600, timer at 0x608
inline constexpr std::uint64_t kPm1ControlOffset = 4;  // of the control register from the event block
inline constexpr std::uint8_t kSciIrq = 9;
inline constexpr std::uint64_t kResetPort = 0xcf9;
inline constexpr std::uint8_t kResetValue = 0x06;  // FADT.RESET_VALUE
inline constexpr std::uint8_t kSleepTypeS5 = 5;    // SLP_TYPx in \_S5
inline constexpr std::uint64_t kSystemControlPortA = 0x92;
inline constexpr std::uint64_t kI8042DataPort = 0x60;
inline constexpr std::uint64_t kI8042CommandPort = 0x64;

// The PM1a event block (offset 0: status, 2: enable) and control block (offset 4) of ACPI's fixed hardware (ACPI 6.4,
// 4.8.3). The machine is always in ACPI mode. Its one event is the power button; it has no wake-up, and the timer's
// carry is not reported. The SCI is a level: high while an enabled status bit is set.
class Pm1Registers final : public Device {
 public:
  static constexpr std::uint64_t kLength = 6;
  explicit Pm1Registers(MachineEventSink sink, IrqLine sci = {}) : sink_(std::move(sink)), sci_(std::move(sci)) {}
  void read(std::uint64_t offset, std::span<std::byte> to) override;
  void write(std::uint64_t offset, std::span<const std::byte> from) override;

  // From any thread. What comes of it is the guest's affair.
  void press_power_button();

 private:
  void update_sci();

  MachineEventSink sink_;
  IrqLine sci_;
  std::mutex mutex_;  // guards all below
  std::array<std::uint8_t, kLength> values_{};
  bool sci_level_ = false;
};

// The reset control register of Intel's chipsets (ICH9 datasheet, 13.7.5): bit 2 set resets, bit 1 says how hard.
class ResetRegister final : public Device {
 public:
  static constexpr std::uint64_t kLength = 1;
  explicit ResetRegister(MachineEventSink sink) : sink_(std::move(sink)) {}
  void read(std::uint64_t offset, std::span<std::byte> to) override;
  void write(std::uint64_t offset, std::span<const std::byte> from) override;

 private:
  MachineEventSink sink_;
  std::atomic<std::uint8_t> value_ = 0;
};

// System control port A: bit 0 resets when it goes from 0 to 1, bit 1 is the A20 gate, which is always open.
class SystemControlA final : public Device {
 public:
  static constexpr std::uint64_t kLength = 1;
  explicit SystemControlA(MachineEventSink sink) : sink_(std::move(sink)) {}
  void read(std::uint64_t offset, std::span<std::byte> to) override;
  void write(std::uint64_t offset, std::span<const std::byte> from) override;

 private:
  MachineEventSink sink_;
  std::atomic<std::uint8_t> value_ = 0;
};

// A keyboard controller without a keyboard: never busy and never holding data, so that whoever waits for it goes on at
// once, and command 0xFE pulses the reset line. Offset 0 is port 0x60, offset 4 port 0x64.
class I8042Stub final : public Device {
 public:
  static constexpr std::uint64_t kDataOffset = 0;
  static constexpr std::uint64_t kCommandOffset = 4;
  explicit I8042Stub(MachineEventSink sink) : sink_(std::move(sink)) {}
  void read(std::uint64_t offset, std::span<std::byte> to) override;
  void write(std::uint64_t offset, std::span<const std::byte> from) override;

 private:
  MachineEventSink sink_;
};

}  // namespace sevisor::devices
