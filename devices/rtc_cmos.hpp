// The MC146818 real-time clock and the CMOS memory beside it, at ports 0x70 and 0x71
// (Motorola MC146818A datasheet; QEMU hw/i386/pc.c for what a PC's CMOS holds).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <optional>
#include <span>

#include "devices/bus.hpp"
#include "devices/clock.hpp"
#include "devices/irq_line.hpp"

namespace sevisor::devices {

inline constexpr std::uint64_t kRtcPort = 0x70;
inline constexpr std::uint32_t kRtcIrq = 8;

class RtcCmos final : public Device {
 public:
  static constexpr std::uint64_t kLength = 2;  // index, data

  struct Config {
    std::int64_t unix_time = 0;     // seconds since 1970-01-01 UTC when the clock reads 0; years 1970 to 9999
    std::uint64_t low_memory = 0;   // bytes of RAM from 0 on, below 4 GiB
    std::uint64_t high_memory = 0;  // bytes of RAM from 4 GiB on
  };

  // `clock` must outlive the device.
  RtcCmos(Clock& clock, const Config& config, IrqLine irq);

  void read(std::uint64_t offset, std::span<std::byte> to) override;
  void write(std::uint64_t offset, std::span<const std::byte> from) override;

  // Timed interrupts. next_event_ns(): when (on the clock) the next enabled interrupt falls due, if any is enabled and
  // not asserted already; poll() then raises the line. A machine that never polls still gets right flags from register
  // C.
  [[nodiscard]] std::optional<std::uint64_t> next_event_ns();
  void poll();

 private:
  [[nodiscard]] std::uint8_t read_register(std::uint8_t index);
  void write_register(std::uint8_t index, std::uint8_t value);
  void write_time(std::uint8_t index, std::uint8_t value);
  void write_register_a(std::uint8_t value);
  void write_register_b(std::uint8_t value);
  [[nodiscard]] bool stopped() const noexcept;
  [[nodiscard]] std::int64_t seconds_at(std::int64_t ns) const noexcept;
  [[nodiscard]] std::int64_t periodic_hz() const noexcept;
  [[nodiscard]] std::int64_t periods_at(std::int64_t ns) const noexcept;
  [[nodiscard]] std::int64_t next_period_ns(std::int64_t after) const noexcept;
  [[nodiscard]] std::optional<std::int64_t> next_alarm_second(std::int64_t after) const;
  [[nodiscard]] std::int64_t now() { return static_cast<std::int64_t>(clock_.now_ns()); }
  void registers_from_time(std::int64_t seconds);
  void time_from_registers(std::int64_t into_second_ns);
  void catch_up();
  void update_irq();
  [[nodiscard]] std::uint8_t encode(unsigned value) const noexcept;
  [[nodiscard]] unsigned decode(std::uint8_t value) const noexcept;
  [[nodiscard]] std::uint8_t encode_hour(unsigned hour) const noexcept;
  [[nodiscard]] unsigned decode_hour(std::uint8_t value) const noexcept;

  Clock& clock_;
  IrqLine irq_;

  std::mutex mutex_;  // guards all below
  std::array<std::uint8_t, 128> cmos_{};
  std::uint8_t index_ = 0;
  std::int64_t base_seconds_ = 0;  // Unix time that began at base_ns_ on the clock
  std::int64_t base_ns_ = 0;
  std::int64_t periodic_base_ns_ = 0;  // where the divider chain started
  std::int64_t seen_ns_ = 0;           // up to where register C is right
  unsigned weekday_shift_ = 0;         // what the guest added to the weekday, modulo 7
  bool irq_level_ = false;
};

}  // namespace sevisor::devices
