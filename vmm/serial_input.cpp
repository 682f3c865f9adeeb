#include "vmm/serial_input.hpp"

#include <algorithm>
#include <array>

namespace sevisor::vmm {

namespace {

// Registers of the 16550 (PC16550D datasheet, table II).
constexpr std::uint64_t kData = 0;
constexpr std::uint64_t kInterruptEnable = 1;
constexpr std::uint64_t kLineControl = 3;
constexpr std::uint64_t kLineStatus = 5;
constexpr std::byte kReceiveInterrupt{0x01};  // in kInterruptEnable
constexpr std::byte kDivisorLatch{0x80};      // in kLineControl

}  // namespace

void SerialInput::read(std::uint64_t offset, std::span<std::byte> to) {
  uart_.read(offset, to);
  if (offset == kData) {
    const std::lock_guard lock(mutex_);
    feed_locked();
  } else if (offset == kLineStatus) {
    const std::lock_guard lock(mutex_);
    if (!ready_ && ++polls_ >= kPollsForReady) {
      ready_ = true;
      feed_locked();
    }
  }
}

void SerialInput::write(std::uint64_t offset, std::span<const std::byte> from) {
  uart_.write(offset, from);
  observe_write(offset, from);
}

void SerialInput::read_string(std::uint64_t offset, std::size_t element, std::span<std::byte> to) {
  uart_.read_string(offset, element, to);
  const std::lock_guard lock(mutex_);
  feed_locked();
}

void SerialInput::write_string(std::uint64_t offset, std::size_t element, std::span<const std::byte> from) {
  uart_.write_string(offset, element, from);
  observe_write(offset, from);
}

void SerialInput::observe_write(std::uint64_t offset, std::span<const std::byte> from) {
  if (from.empty()) return;
  const std::lock_guard lock(mutex_);
  polls_ = 0;
  const std::byte value = from.back();
  if (offset == kLineControl) divisor_latch_ = (value & kDivisorLatch) != std::byte{0};
  if (offset == kInterruptEnable && !divisor_latch_ && (value & kReceiveInterrupt) != std::byte{0}) ready_ = true;
  if (offset != kData) feed_locked();
}

void SerialInput::feed_locked() {
  if (!ready_ || pending_.empty()) return;
  std::array<std::byte, 256> chunk{};
  while (!pending_.empty()) {
    const std::size_t size = std::min({pending_.size(), chunk.size(), uart_.can_accept()});
    if (size == 0) break;
    std::copy_n(pending_.begin(), size, chunk.begin());
    const std::size_t taken = uart_.push(std::span(chunk).first(size));
    pending_.erase(pending_.begin(), pending_.begin() + static_cast<std::ptrdiff_t>(taken));
    if (taken < size) break;
  }
  drained_.notify_all();
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
