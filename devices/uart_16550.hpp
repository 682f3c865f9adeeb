// A 16550A serial port (National Semiconductor PC16550D datasheet, June 1995).
//
// The line is infinitely fast: a byte written is sent before the write returns, and received bytes come in one burst,
// so the character time-out of a FIFO below its trigger level has always passed.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <span>

#include "devices/bus.hpp"
#include "devices/irq_line.hpp"

namespace sevisor::devices {

inline constexpr std::uint64_t kCom1Port = 0x3f8;
inline constexpr std::uint32_t kCom1Irq = 4;

class Uart16550 final : public Device {
 public:
  static constexpr std::uint64_t kLength = 8;  // registers, one byte each
  static constexpr std::size_t kFifoSize = 16;
  static constexpr std::size_t kBacklogSize = 4096;  // received bytes that wait behind the FIFO

  // Gets what the guest sends, in order, on the vCPU's thread with the device's lock held: it must be quick and must
  // not call back into the device.
  using Sink = std::function<void(std::span<const std::byte>)>;

  Uart16550(IrqLine irq, Sink sink) : irq_(std::move(irq)), sink_(std::move(sink)) {}

  void read(std::uint64_t offset, std::span<std::byte> to) override;
  void write(std::uint64_t offset, std::span<const std::byte> from) override;
  void write_string(std::uint64_t offset, std::size_t element, std::span<const std::byte> from) override;

  // Input, from any thread. can_accept(): how many bytes push() would take now. push() takes as many as fit, from the
  // front, and returns how many; the caller offers the rest again later.
  [[nodiscard]] std::size_t can_accept() const;
  std::size_t push(std::span<const std::byte> input);
  // A break condition on the line (a console's SysRq). False when there is no room for it now.
  bool push_break();

 private:
  struct Received {
    std::uint8_t data;
    std::uint8_t errors;  // LSR bits that came with it
  };

  [[nodiscard]] std::uint8_t read_register(std::uint64_t offset);
  void write_register(std::uint64_t offset, std::uint8_t value);
  [[nodiscard]] std::uint8_t read_receive_buffer();
  [[nodiscard]] std::uint8_t read_line_status();
  [[nodiscard]] std::uint8_t read_modem_status();
  void write_transmit(std::uint8_t value);
  void write_fifo_control(std::uint8_t value);
  void write_modem_control(std::uint8_t value);
  void receive(Received received);
  void refill();
  [[nodiscard]] std::uint8_t modem_inputs() const noexcept;
  [[nodiscard]] std::size_t fifo_capacity() const noexcept;
  [[nodiscard]] std::uint8_t interrupt_id() const noexcept;
  void update_irq();

  IrqLine irq_;
  Sink sink_;

  mutable std::mutex mutex_;  // guards all below
  std::array<Received, kFifoSize> fifo_{};
  std::size_t fifo_head_ = 0;
  std::size_t fifo_count_ = 0;
  std::deque<Received> backlog_;
  std::uint8_t ier_ = 0;
  std::uint8_t fcr_ = 0;
  std::uint8_t lcr_ = 0;
  std::uint8_t mcr_ = 0;
  std::uint8_t scratch_ = 0;
  std::uint8_t divisor_low_ = 12;  // 9600 baud, as firmware leaves it
  std::uint8_t divisor_high_ = 0;
  std::uint8_t overrun_ = 0;      // LSR.OE until read
  std::uint8_t modem_delta_ = 0;  // MSR bits 3:0 until read
  bool thr_empty_pending_ = false;
  bool irq_level_ = false;
};

}  // namespace sevisor::devices
