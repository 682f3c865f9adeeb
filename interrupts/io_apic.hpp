// An IOAPIC of 24 pins, as KVM's in-kernel one behaves: version 0x11, no EOI register (Intel 82093AA datasheet).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "base/address.hpp"
#include "interrupts/interrupt_message.hpp"

namespace sevisor::interrupts {

inline constexpr unsigned kIoApicPins = 24;
inline constexpr std::uint64_t kIoApicBase = 0xfec00000;
inline constexpr std::uint64_t kIoApicWindow = 0x100;  // bytes that KVM answers for
inline constexpr std::size_t kIoApicStateSize = 216;   // struct kvm_ioapic_state

class IoApic {
 public:
  // --- registers: IOREGSEL at 0x00, IOWIN at 0x10 from base(). A write of a redirection entry may make a
  // level-triggered pin deliverable: see due().
  [[nodiscard]] Gpa base() const noexcept { return Gpa(base_); }
  [[nodiscard]] std::uint32_t read(std::uint32_t offset) const noexcept;
  void write(std::uint32_t offset, std::uint32_t value) noexcept;

  // --- pins, 0..23, active high whatever the entry's polarity says (as in KVM). Returns what the caller has to
  // deliver, and then to report through delivered(); none when the pin is masked or low, when an edge-triggered pin was
  // high already, or when a level-triggered one awaits its EOI.
  [[nodiscard]] std::optional<InterruptMessage> set_level(unsigned pin, bool level) noexcept;
  [[nodiscard]] bool level(unsigned pin) const noexcept { return (irr_ >> pin & 1) != 0; }
  [[nodiscard]] bool masked(unsigned pin) const noexcept;
  // Some APIC accepted the pin's message: a level-triggered entry gets its Remote IRR.
  void delivered(unsigned pin) noexcept;
  // The pins whose entry has this vector, one bit each.
  [[nodiscard]] std::uint32_t pins_with(std::uint8_t vector) const noexcept;
  // A local APIC ended this level-triggered vector: Remote IRR goes from the entries that have it.
  void end_of_interrupt(std::uint8_t vector) noexcept;

  // Pins that are high, level-triggered, unmasked and without Remote IRR: each has to be sent message(pin). One bit
  // each.
  [[nodiscard]] std::uint32_t due() const noexcept;
  [[nodiscard]] InterruptMessage message(unsigned pin) const noexcept;

  // --- struct kvm_ioapic_state. set_state() puts the pins' levels back; the caller looks at due() after it. Edge-
  // triggered pins that the state has high are not sent again.
  void get_state(std::span<std::byte, kIoApicStateSize> state) const noexcept;
  void set_state(std::span<const std::byte, kIoApicStateSize> state) noexcept;

 private:
  std::uint64_t base_ = kIoApicBase;
  std::uint32_t select_ = 0;
  std::uint32_t id_ = 0;
  std::uint32_t irr_ = 0;  // levels of the pins
  std::array<std::uint64_t, kIoApicPins> entries_ = initial_entries();

  static std::array<std::uint64_t, kIoApicPins> initial_entries() noexcept;
};

}  // namespace sevisor::interrupts
