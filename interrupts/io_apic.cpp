#include "interrupts/io_apic.hpp"

#include <algorithm>

#include "base/bytes.hpp"

namespace sevisor::interrupts {
namespace {

constexpr std::uint32_t kSelectOffset = 0x00;
constexpr std::uint32_t kWindowOffset = 0x10;

// Indirect registers.
constexpr std::uint32_t kIdRegister = 0;
constexpr std::uint32_t kVersionRegister = 1;
constexpr std::uint32_t kArbitrationRegister = 2;
constexpr std::uint32_t kFirstEntryRegister = 0x10;

constexpr std::uint32_t kVersion = 0x11 | (kIoApicPins - 1) << 16;

// Redirection entry.
constexpr std::uint64_t kRemoteIrr = 1 << 14;
constexpr std::uint64_t kLevelTriggered = 1 << 15;
constexpr std::uint64_t kMasked = 1 << 16;
constexpr std::uint64_t kWritableLow = 0x1afff;  // all but the delivery status and the Remote IRR
constexpr std::uint64_t kWritableHigh = std::uint64_t{0xff} << 56;

// struct kvm_ioapic_state
constexpr std::size_t kStateBase = 0;
constexpr std::size_t kStateSelect = 8;
constexpr std::size_t kStateId = 12;
constexpr std::size_t kStateIrr = 16;
constexpr std::size_t kStateEntries = 24;
static_assert(kStateEntries + kIoApicPins * sizeof(std::uint64_t) == kIoApicStateSize);

// Linux counts on it that Remote IRR goes when an entry becomes edge-triggered: it has no EOI register to clear it by.
constexpr std::uint64_t normalised(std::uint64_t entry) noexcept {
  entry &= kWritableLow | kWritableHigh | kRemoteIrr;
  return (entry & kLevelTriggered) != 0 ? entry : entry & ~kRemoteIrr;
}

}  // namespace

std::array<std::uint64_t, kIoApicPins> IoApic::initial_entries() noexcept {
  std::array<std::uint64_t, kIoApicPins> entries;
  entries.fill(kMasked);
  return entries;
}

std::uint32_t IoApic::read(std::uint32_t offset) const noexcept {
  if (offset == kSelectOffset) return select_;
  if (offset != kWindowOffset) return 0;
  switch (select_) {
    case kIdRegister:
    case kArbitrationRegister:
      return id_ << 24;
    case kVersionRegister:
      return kVersion;
    default:
      break;
  }
  const std::uint32_t index = select_ - kFirstEntryRegister;
  if (select_ < kFirstEntryRegister || index / 2 >= kIoApicPins) return 0xffffffff;
  return static_cast<std::uint32_t>(entries_[index / 2] >> (index % 2 * 32));
}

void IoApic::write(std::uint32_t offset, std::uint32_t value) noexcept {
  if (offset == kSelectOffset) select_ = value & 0xff;
  if (offset != kWindowOffset) return;
  if (select_ == kIdRegister) id_ = value >> 24 & 0xf;
  const std::uint32_t index = select_ - kFirstEntryRegister;
  if (select_ < kFirstEntryRegister || index / 2 >= kIoApicPins) return;
  std::uint64_t& entry = entries_[index / 2];
  if (index % 2 != 0) {
    entry = (entry & 0xffffffff) | (std::uint64_t{value} << 32 & kWritableHigh);
  } else {
    entry = normalised((entry & (kWritableHigh | kRemoteIrr)) | (value & kWritableLow));
  }
}

std::optional<InterruptMessage> IoApic::set_level(unsigned pin, bool level) noexcept {
  const std::uint32_t bit = std::uint32_t{1} << pin;
  const bool was_high = (irr_ & bit) != 0;
  irr_ = level ? irr_ | bit : irr_ & ~bit;
  const std::uint64_t entry = entries_[pin];
  if (!level || (entry & kMasked) != 0) return std::nullopt;
  const bool blocked = (entry & kLevelTriggered) != 0 ? (entry & kRemoteIrr) != 0 : was_high;
  if (blocked) return std::nullopt;
  return message(pin);
}

bool IoApic::masked(unsigned pin) const noexcept { return (entries_[pin] & kMasked) != 0; }

void IoApic::delivered(unsigned pin) noexcept {
  if ((entries_[pin] & kLevelTriggered) != 0) entries_[pin] |= kRemoteIrr;
}

std::uint32_t IoApic::pins_with(std::uint8_t vector) const noexcept {
  std::uint32_t pins = 0;
  for (unsigned pin = 0; pin < kIoApicPins; ++pin) {
    if ((entries_[pin] & 0xff) == vector) pins |= std::uint32_t{1} << pin;
  }
  return pins;
}

void IoApic::end_of_interrupt(std::uint8_t vector) noexcept {
  for (std::uint64_t& entry : entries_) {
    if ((entry & 0xff) == vector && (entry & kLevelTriggered) != 0) entry &= ~kRemoteIrr;
  }
}

std::uint32_t IoApic::due() const noexcept {
  std::uint32_t pins = 0;
  for (unsigned pin = 0; pin < kIoApicPins; ++pin) {
    if ((entries_[pin] & (kLevelTriggered | kMasked | kRemoteIrr)) == kLevelTriggered) pins |= std::uint32_t{1} << pin;
  }
  return pins & irr_;
}

InterruptMessage IoApic::message(unsigned pin) const noexcept {
  const std::uint64_t entry = entries_[pin];
  InterruptMessage message;
  message.destination = static_cast<std::uint32_t>(entry >> 56);
  message.logical = (entry >> 11 & 1) != 0;
  message.mode = static_cast<DeliveryMode>(entry >> 8 & 7);
  message.vector = static_cast<std::uint8_t>(entry & 0xff);
  message.level_triggered = (entry & kLevelTriggered) != 0;
  return message;
}

void IoApic::get_state(std::span<std::byte, kIoApicStateSize> state) const noexcept {
  std::fill(state.begin(), state.end(), std::byte{0});
  store(state.data() + kStateBase, base_);
  store(state.data() + kStateSelect, select_);
  store(state.data() + kStateId, id_);
  store(state.data() + kStateIrr, irr_);
  for (unsigned pin = 0; pin < kIoApicPins; ++pin) store(state.data() + kStateEntries + pin * 8, entries_[pin]);
}

void IoApic::set_state(std::span<const std::byte, kIoApicStateSize> state) noexcept {
  base_ = load<std::uint64_t>(state.data() + kStateBase);
  select_ = load<std::uint32_t>(state.data() + kStateSelect) & 0xff;
  id_ = load<std::uint32_t>(state.data() + kStateId) & 0xf;
  irr_ = load<std::uint32_t>(state.data() + kStateIrr) & ((std::uint32_t{1} << kIoApicPins) - 1);
  for (unsigned pin = 0; pin < kIoApicPins; ++pin) {
    entries_[pin] = normalised(load<std::uint64_t>(state.data() + kStateEntries + pin * 8));
  }
}

}  // namespace sevisor::interrupts
