#include "vmm/console/serial_input.hpp"

#include <algorithm>
#include <array>

namespace sevisor::vmm {

namespace {

// Registers of the 16550 and their bits (PC16550D datasheet, table II).
constexpr std::uint64_t kData = 0;
constexpr std::uint64_t kInterruptEnable = 1;
constexpr std::uint64_t kFifoControl = 2;
constexpr std::uint64_t kLineControl = 3;
constexpr std::uint64_t kModemControl = 4;
constexpr std::uint64_t kLineStatus = 5;

constexpr std::byte kReceiveInterrupt{0x01};  // in kInterruptEnable
constexpr std::byte kFifoEnable{0x01};        // in kFifoControl
constexpr std::byte kFifoClearReceive{0x02};  // in kFifoControl
constexpr std::byte kDivisorLatch{0x80};      // in kLineControl
constexpr std::byte kOut2{0x08};              // in kModemControl: a PC's interrupt line is behind it
constexpr std::byte kLoop{0x10};              // in kModemControl

bool has(std::byte value, std::byte bit) { return (value & bit) != std::byte{0}; }

}  // namespace

void SerialInput::read(std::uint64_t offset, std::span<std::byte> to) {
  uart_.read(offset, to);
  for (std::size_t i = 0; i < to.size(); ++i) observe_read(offset + i, 1);
}

void SerialInput::read_string(std::uint64_t offset, std::size_t element, std::span<std::byte> to) {
  // One at a time, so that no byte of the FIFO is read unseen.
  for (std::size_t at = 0; at + element <= to.size() && element != 0; at += element)
    read(offset, to.subspan(at, element));
}

void SerialInput::write(std::uint64_t offset, std::span<const std::byte> from) {
  uart_.write(offset, from);
  for (std::size_t i = 0; i < from.size(); ++i) observe_write(offset + i, from[i]);
}

void SerialInput::write_string(std::uint64_t offset, std::size_t element, std::span<const std::byte> from) {
  uart_.write_string(offset, element, from);
  if (!from.empty() && element == 1) observe_write(offset, from.back());
}

void SerialInput::observe_read(std::uint64_t offset, std::size_t count) {
  if (offset != kData && offset != kLineStatus) return;
  const std::lock_guard lock(mutex_);
  if (offset == kLineStatus) {
    if (!ready_ && ++polls_ >= kPollsForReady) {
      ready_ = true;
      feed_locked();
    }
    return;
  }
  if (has(line_control_, kDivisorLatch)) return;
  in_flight_.erase(in_flight_.begin(),
                   in_flight_.begin() + static_cast<std::ptrdiff_t>(std::min(count, in_flight_.size())));
  feed_locked();
}

void SerialInput::observe_write(std::uint64_t offset, std::byte value) {
  const std::lock_guard lock(mutex_);
  polls_ = 0;
  switch (offset) {
    case kInterruptEnable:
      if (!has(line_control_, kDivisorLatch)) interrupt_enable_ = value;
      break;
    case kFifoControl: {
      const bool mode_changes = has(value ^ fifo_control_, kFifoEnable);
      if (mode_changes || (has(value, kFifoEnable) && has(value, kFifoClearReceive))) {
        pending_.insert(pending_.begin(), in_flight_.begin(), in_flight_.end());
        in_flight_.clear();
      }
      fifo_control_ = value;
      break;
    }
    case kLineControl:
      line_control_ = value;
      break;
    case kModemControl:
      modem_control_ = value;
      break;
    default:
      return;  // the data register above all: nothing there makes the guest ready
  }
  if (has(interrupt_enable_, kReceiveInterrupt) && has(modem_control_, kOut2) && !has(modem_control_, kLoop)) {
    ready_ = true;
  }
  feed_locked();
}

// Never more than the FIFO holds, so that in_flight_ is what a reset of it throws away.
void SerialInput::feed_locked() {
  if (!ready_ || !in_flight_.empty() || pending_.empty() || has(modem_control_, kLoop)) return;
  const std::size_t capacity = has(fifo_control_, kFifoEnable) ? devices::Uart16550::kFifoSize : 1;
  const std::size_t size = std::min(pending_.size(), capacity);
  std::array<std::byte, devices::Uart16550::kFifoSize> chunk{};
  std::copy_n(pending_.begin(), size, chunk.begin());
  const std::size_t taken = uart_.push(std::span(chunk).first(size));
  const auto end = pending_.begin() + static_cast<std::ptrdiff_t>(taken);
  in_flight_.assign(pending_.begin(), end);
  pending_.erase(pending_.begin(), end);
  if (pending_.size() < kMaxPending) drained_.notify_all();
}

bool SerialInput::send(std::span<const std::byte> input) {
  std::unique_lock lock(mutex_);
  while (!input.empty()) {
    drained_.wait(lock, [this] { return closed_ || pending_.size() < kMaxPending; });
    if (closed_) return false;
    const std::size_t size = std::min(input.size(), kMaxPending - pending_.size());
    pending_.insert(pending_.end(), input.begin(), input.begin() + static_cast<std::ptrdiff_t>(size));
    input = input.subspan(size);
    feed_locked();
  }
  return true;
}

void SerialInput::send_break() {
  const std::lock_guard lock(mutex_);
  uart_.push_break();
}

void SerialInput::close() {
  const std::lock_guard lock(mutex_);
  closed_ = true;
  drained_.notify_all();
}

}  // namespace sevisor::vmm
