// Holds console input until the guest is ready for it, and hands it to the serial port as its FIFO drains.
//
// A guest probes and resets the port while it comes up, which would eat what was typed or piped in before. So input
// waits until the guest enables the receive interrupt and lets it out of the port or, if it works without interrupts,
// polls the port for input. What a reset of the FIFO throws away after that is offered again.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <mutex>
#include <span>

#include "devices/bus.hpp"
#include "devices/uart_16550.hpp"

namespace sevisor::vmm {

// Stands on the port bus in the UART's place and passes every access on to it.
class SerialInput final : public devices::Device {
 public:
  static constexpr std::size_t kMaxPending = 64 * 1024;  // bytes
  // Reads of the line status without a write between them that mean "waiting for input".
  static constexpr unsigned kPollsForReady = 64;

  // `uart` must outlive this object.
  explicit SerialInput(devices::Uart16550& uart) : uart_(uart) {}

  void read(std::uint64_t offset, std::span<std::byte> to) override;
  void write(std::uint64_t offset, std::span<const std::byte> from) override;
  void read_string(std::uint64_t offset, std::size_t element, std::span<std::byte> to) override;
  void write_string(std::uint64_t offset, std::size_t element, std::span<const std::byte> from) override;

  // Takes all of the input, waiting while more than kMaxPending bytes are pending. false if close() came first.
  bool send(std::span<const std::byte> input);
  void send_break();
  // Lets waiting senders go.
  void close();

 private:
  void observe_read(std::uint64_t offset, std::size_t count);
  void observe_write(std::uint64_t offset, std::byte value);
  void feed_locked();

  devices::Uart16550& uart_;
  std::mutex mutex_;  // guards all below
  std::condition_variable drained_;
  std::deque<std::byte> pending_;    // not yet handed to the UART
  std::deque<std::byte> in_flight_;  // in the UART's FIFO, not yet read by the guest
  std::byte interrupt_enable_{0};    // registers as last written
  std::byte fifo_control_{0};
  std::byte line_control_{0};
  std::byte modem_control_{0};
  bool ready_ = false;
  bool closed_ = false;
  unsigned polls_ = 0;
};

}  // namespace sevisor::vmm
