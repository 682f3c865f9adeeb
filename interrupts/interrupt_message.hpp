// What travels between interrupt controllers: one request, with its destination (Intel SDM vol. 3, "Issuing
// Interprocessor Interrupts"; AMD APM vol. 2, "Interrupt Command Register").
#pragma once

#include <cstdint>
#include <optional>

namespace sevisor::interrupts {

// Values as in bits 10:8 of the ICR, an LVT entry, an IOAPIC redirection entry and MSI data.
enum class DeliveryMode : std::uint8_t {
  kFixed = 0,
  kLowestPriority = 1,
  kSmi = 2,
  kReserved = 3,
  kNmi = 4,
  kInit = 5,
  kStartup = 6,
  kExtInt = 7,
};

// Values as in bits 19:18 of the ICR.
enum class Shorthand : std::uint8_t { kNone = 0, kSelf = 1, kAll = 2, kAllButSelf = 3 };

struct InterruptMessage {
  std::uint32_t destination = 0;  // 8 bits from xAPIC, IOAPIC and MSI; 32 bits from x2APIC
  bool logical = false;           // destination mode
  DeliveryMode mode = DeliveryMode::kFixed;
  std::uint8_t vector = 0;
  bool level_triggered = false;
  bool asserted = true;           // false only for an INIT level de-assert, which has no effect
  bool redirection_hint = false;  // MSI address bit 3: one of the destinations is enough
  Shorthand shorthand = Shorthand::kNone;
  // The sender's vCPU index for an interprocessor interrupt; none for a device's. Shorthands need it.
  std::optional<unsigned> sender;

  friend bool operator==(const InterruptMessage&, const InterruptMessage&) = default;
};

// An MSI as a device writes it. `address` bits 19:12 hold the destination, 3 the redirection hint, 2 the mode; `data`
// 15 the trigger mode, 10:8 the delivery mode, 7:0 the vector. With `extended_ids` bits 63:40 of the address extend the
// destination to 32 bits (KVM_X2APIC_API_USE_32BIT_IDS).
[[nodiscard]] InterruptMessage decode_msi(std::uint64_t address, std::uint32_t data, bool extended_ids) noexcept;

struct Msi {
  std::uint64_t address = 0;
  std::uint32_t data = 0;
  friend bool operator==(const Msi&, const Msi&) = default;
};
// The MSI of a device's message, whose destination has 8 bits.
[[nodiscard]] Msi encode_msi(const InterruptMessage& message) noexcept;

}  // namespace sevisor::interrupts
