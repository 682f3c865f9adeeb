// An IOAPIC for a machine whose local APICs are the host's: it sends messages to them, and is told when they end an
// interrupt. Intel 82093AA datasheet.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <mutex>
#include <optional>
#include <span>

#include "devices/bus.hpp"
#include "interrupts/interrupt_message.hpp"
#include "interrupts/io_apic.hpp"

namespace sevisor::devices {

class IoApic final : public Device {
 public:
  static constexpr std::uint64_t kBase = interrupts::kIoApicBase;
  static constexpr std::uint64_t kLength = interrupts::kIoApicWindow;
  static constexpr unsigned kPins = interrupts::kIoApicPins;

  // What each pin sends; none before the guest has first unmasked it. A masked pin keeps what it sent last, whose end
  // may be yet to come.
  using PinMessages = std::array<std::optional<interrupts::Msi>, kPins>;

  // Both are called with the device's lock held, and must not call back into it.
  struct Wiring {
    std::function<bool(const interrupts::Msi&)> send;          // whether some local APIC took it
    std::function<void(const PinMessages&)> messages_changed;  // before any of the new ones is sent
  };
  explicit IoApic(Wiring wiring) : wiring_(std::move(wiring)) {}

  // --- 32-bit registers; other sizes see or give a register's low bytes
  void read(std::uint64_t offset, std::span<std::byte> to) override;
  void write(std::uint64_t offset, std::span<const std::byte> from) override;

  // From any thread. `pin` below kPins.
  void set_line(unsigned pin, bool level);
  // A local APIC ended a level-triggered interrupt with this vector.
  void end_of_interrupt(std::uint8_t vector);

 private:
  void send(unsigned pin, const interrupts::InterruptMessage& message);
  void send_due();
  void update_messages();

  Wiring wiring_;
  std::mutex mutex_;
  interrupts::IoApic registers_;
  PinMessages messages_;
};

}  // namespace sevisor::devices
