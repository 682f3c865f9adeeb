#include "devices/uart_16550.hpp"

#include <algorithm>

namespace sevisor::devices {

namespace {
// Registers by offset (PC16550D datasheet, table II).
enum Register : std::uint8_t { kData = 0, kIer = 1, kIirFcr = 2, kLcr = 3, kMcr = 4, kLsr = 5, kMsr = 6, kScratch = 7 };

// Interrupt enable register.
constexpr std::uint8_t kIerReceive = 0x01;
constexpr std::uint8_t kIerTransmit = 0x02;
constexpr std::uint8_t kIerLineStatus = 0x04;
constexpr std::uint8_t kIerModemStatus = 0x08;
constexpr std::uint8_t kIerMask = 0x0f;

// Interrupt identification register, by falling priority.
constexpr std::uint8_t kIirLineStatus = 0x06;
constexpr std::uint8_t kIirReceive = 0x04;
constexpr std::uint8_t kIirTimeout = 0x0c;
constexpr std::uint8_t kIirTransmit = 0x02;
constexpr std::uint8_t kIirModemStatus = 0x00;
constexpr std::uint8_t kIirNone = 0x01;
constexpr std::uint8_t kIirFifosOn = 0xc0;

// FIFO control register.
constexpr std::uint8_t kFcrEnable = 0x01;
constexpr std::uint8_t kFcrClearReceive = 0x02;
constexpr std::uint8_t kFcrKept = 0xc9;  // trigger level, DMA mode, enable
constexpr unsigned kFcrTriggerShift = 6;
constexpr std::array<std::uint8_t, 4> kTriggerLevels = {1, 4, 8, 14};

constexpr std::uint8_t kLcrDivisorLatch = 0x80;

// Modem control register.
constexpr std::uint8_t kMcrDtr = 0x01;
constexpr std::uint8_t kMcrRts = 0x02;
constexpr std::uint8_t kMcrOut1 = 0x04;
constexpr std::uint8_t kMcrOut2 = 0x08;
constexpr std::uint8_t kMcrLoop = 0x10;
constexpr std::uint8_t kMcrMask = 0x1f;

// Line status register.
constexpr std::uint8_t kLsrDataReady = 0x01;
constexpr std::uint8_t kLsrOverrun = 0x02;
constexpr std::uint8_t kLsrBreak = 0x10;
constexpr std::uint8_t kLsrTransmitEmpty = 0x60;  // THRE and TEMT: the line is infinitely fast
constexpr std::uint8_t kLsrFifoError = 0x80;

// Modem status register.
constexpr std::uint8_t kMsrCts = 0x10;
constexpr std::uint8_t kMsrDsr = 0x20;
constexpr std::uint8_t kMsrRi = 0x40;
constexpr std::uint8_t kMsrDcd = 0x80;
constexpr std::uint8_t kMsrDeltaRi = 0x04;  // set by the trailing edge only
constexpr unsigned kMsrDeltaShift = 4;
}  // namespace

void Uart16550::read(std::uint64_t offset, std::span<std::byte> to) {
  const std::lock_guard lock(mutex_);
  // A wider access is one byte access after another, as an 8-bit device on the ISA bus sees it.
  for (std::byte& byte : to) byte = std::byte{read_register(offset++)};
}

void Uart16550::write(std::uint64_t offset, std::span<const std::byte> from) {
  const std::lock_guard lock(mutex_);
  for (const std::byte byte : from) write_register(offset++, std::to_integer<std::uint8_t>(byte));
}

void Uart16550::write_string(std::uint64_t offset, std::size_t element, std::span<const std::byte> from) {
  {
    const std::lock_guard lock(mutex_);
    if (offset == kData && element == 1 && (lcr_ & kLcrDivisorLatch) == 0 && (mcr_ & kMcrLoop) == 0) {
      if (from.empty()) return;
      if (sink_) sink_(from);
      thr_empty_pending_ = true;
      update_irq();
      return;
    }
  }
  Device::write_string(offset, element, from);
}

std::uint8_t Uart16550::read_register(std::uint64_t offset) {
  const bool latch = (lcr_ & kLcrDivisorLatch) != 0;
  switch (offset) {
    case kData:
      return latch ? divisor_low_ : read_receive_buffer();
    case kIer:
      return latch ? divisor_high_ : ier_;
    case kIirFcr: {
      const std::uint8_t id = interrupt_id();
      if (id == kIirTransmit) {
        thr_empty_pending_ = false;
        update_irq();
      }
      return static_cast<std::uint8_t>(id | ((fcr_ & kFcrEnable) != 0 ? kIirFifosOn : 0));
    }
    case kLcr:
      return lcr_;
    case kMcr:
      return mcr_;
    case kLsr:
      return read_line_status();
    case kMsr:
      return read_modem_status();
    case kScratch:
      return scratch_;
    default:
      return 0xff;
  }
}

void Uart16550::write_register(std::uint64_t offset, std::uint8_t value) {
  const bool latch = (lcr_ & kLcrDivisorLatch) != 0;
  switch (offset) {
    case kData:
      if (latch) {
        divisor_low_ = value;
      } else {
        write_transmit(value);
      }
      break;
    case kIer:
      if (latch) {
        divisor_high_ = value;
        break;
      }
      // Enabling the interrupt of a transmitter that is empty already raises it.
      if ((value & ~ier_ & kIerTransmit) != 0) thr_empty_pending_ = true;
      ier_ = value & kIerMask;
      update_irq();
      break;
    case kIirFcr:
      write_fifo_control(value);
      break;
    case kLcr:
      lcr_ = value;
      break;
    case kMcr:
      write_modem_control(value);
      break;
    case kScratch:
      scratch_ = value;
      break;
    default:  // LSR and MSR: for factory tests only
      break;
  }
}

std::uint8_t Uart16550::read_receive_buffer() {
  if (fifo_count_ == 0) return 0;
  const std::uint8_t data = fifo_[fifo_head_].data;
  fifo_head_ = (fifo_head_ + 1) % kFifoSize;
  --fifo_count_;
  refill();
  update_irq();
  return data;
}

std::uint8_t Uart16550::read_line_status() {
  std::uint8_t value = kLsrTransmitEmpty | overrun_;
  if (fifo_count_ != 0) {
    value = static_cast<std::uint8_t>(value | kLsrDataReady | fifo_[fifo_head_].errors);
    if ((fcr_ & kFcrEnable) != 0) {
      for (std::size_t i = 0; i < fifo_count_; ++i) {
        if (fifo_[(fifo_head_ + i) % kFifoSize].errors != 0) value |= kLsrFifoError;
      }
    }
    fifo_[fifo_head_].errors = 0;
  }
  overrun_ = 0;
  update_irq();
  return value;
}

std::uint8_t Uart16550::read_modem_status() {
  const std::uint8_t value = modem_inputs() | modem_delta_;
  modem_delta_ = 0;
  update_irq();
  return value;
}

void Uart16550::write_transmit(std::uint8_t value) {
  if ((mcr_ & kMcrLoop) != 0) {
    receive({value, 0});
  } else if (sink_) {
    const std::byte byte{value};
    sink_({&byte, 1});
  }
  thr_empty_pending_ = true;
  update_irq();
}

void Uart16550::write_fifo_control(std::uint8_t value) {
  const bool mode_changes = ((value ^ fcr_) & kFcrEnable) != 0;
  if (mode_changes || (value & (kFcrEnable | kFcrClearReceive)) == (kFcrEnable | kFcrClearReceive)) {
    fifo_count_ = 0;
    overrun_ = 0;
  }
  // The other bits are programmed only together with the enable bit.
  fcr_ = (value & kFcrEnable) != 0 ? value & kFcrKept : 0;
  refill();
  update_irq();
}

void Uart16550::write_modem_control(std::uint8_t value) {
  const std::uint8_t before = modem_inputs();
  mcr_ = value & kMcrMask;
  const std::uint8_t after = modem_inputs();
  auto changed = static_cast<std::uint8_t>((before ^ after) >> kMsrDeltaShift);
  if ((after & kMsrRi) != 0) changed &= static_cast<std::uint8_t>(~kMsrDeltaRi);
  modem_delta_ |= changed;
  refill();
  update_irq();
}

void Uart16550::receive(Received received) {
  if (fifo_count_ >= fifo_capacity()) {
    overrun_ = kLsrOverrun;
    // Without FIFOs the new character takes the old one's place; with them it is lost.
    if ((fcr_ & kFcrEnable) == 0) fifo_[fifo_head_] = received;
    return;
  }
  fifo_[(fifo_head_ + fifo_count_) % kFifoSize] = received;
  ++fifo_count_;
}

// Moves what waits on the line into the FIFO; in loopback the line is not connected.
void Uart16550::refill() {
  if ((mcr_ & kMcrLoop) != 0) return;
  while (!backlog_.empty() && fifo_count_ < fifo_capacity()) {
    receive(backlog_.front());
    backlog_.pop_front();
  }
}

std::size_t Uart16550::can_accept() const {
  const std::lock_guard lock(mutex_);
  return kBacklogSize - backlog_.size();
}

std::size_t Uart16550::push(std::span<const std::byte> input) {
  const std::lock_guard lock(mutex_);
  const std::size_t taken = std::min(input.size(), kBacklogSize - backlog_.size());
  for (const std::byte byte : input.first(taken)) backlog_.push_back({std::to_integer<std::uint8_t>(byte), 0});
  refill();
  update_irq();
  return taken;
}

bool Uart16550::push_break() {
  const std::lock_guard lock(mutex_);
  if (backlog_.size() >= kBacklogSize) return false;
  backlog_.push_back({0, kLsrBreak});
  refill();
  update_irq();
  return true;
}

std::uint8_t Uart16550::modem_inputs() const noexcept {
  if ((mcr_ & kMcrLoop) == 0) return kMsrCts | kMsrDsr | kMsrDcd;
  std::uint8_t inputs = 0;
  if ((mcr_ & kMcrDtr) != 0) inputs |= kMsrDsr;
  if ((mcr_ & kMcrRts) != 0) inputs |= kMsrCts;
  if ((mcr_ & kMcrOut1) != 0) inputs |= kMsrRi;
  if ((mcr_ & kMcrOut2) != 0) inputs |= kMsrDcd;
  return inputs;
}

std::size_t Uart16550::fifo_capacity() const noexcept { return (fcr_ & kFcrEnable) != 0 ? kFifoSize : 1; }

std::uint8_t Uart16550::interrupt_id() const noexcept {
  const bool line_error = overrun_ != 0 || (fifo_count_ != 0 && fifo_[fifo_head_].errors != 0);
  if ((ier_ & kIerLineStatus) != 0 && line_error) return kIirLineStatus;
  if ((ier_ & kIerReceive) != 0 && fifo_count_ != 0) {
    if ((fcr_ & kFcrEnable) == 0) return kIirReceive;
    return fifo_count_ >= kTriggerLevels[fcr_ >> kFcrTriggerShift] ? kIirReceive : kIirTimeout;
  }
  if ((ier_ & kIerTransmit) != 0 && thr_empty_pending_) return kIirTransmit;
  if ((ier_ & kIerModemStatus) != 0 && modem_delta_ != 0) return kIirModemStatus;
  return kIirNone;
}

void Uart16550::update_irq() {
  const bool level = interrupt_id() != kIirNone;
  if (level == irq_level_) return;
  irq_level_ = level;
  if (irq_) irq_(level);
}

}  // namespace sevisor::devices
