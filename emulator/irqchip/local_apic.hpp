// A local APIC in xAPIC and x2APIC mode, as KVM's in-kernel one behaves (Intel SDM vol. 3, "Advanced Programmable
// Interrupt Controller"; AMD APM vol. 2, chapter 16). It delivers nothing to other APICs by itself: what a register
// write sends out is its return value.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "base/address.hpp"
#include "emulator/irqchip/apic_timer.hpp"
#include "interrupts/interrupt_message.hpp"

namespace sevisor::emulator {

using interrupts::DeliveryMode;
using interrupts::InterruptMessage;
using interrupts::Shorthand;

inline constexpr std::uint64_t kApicBaseDefault = 0xfee00000;
inline constexpr std::uint64_t kApicBaseBootstrap = 1 << 8;
inline constexpr std::uint64_t kApicBaseX2apic = 1 << 10;
inline constexpr std::uint64_t kApicBaseEnable = 1 << 11;

inline constexpr std::uint32_t kMsrX2apicFirst = 0x800;
inline constexpr std::uint32_t kMsrX2apicLast = 0x8ff;

inline constexpr std::size_t kApicStateSize = 0x400;  // struct kvm_lapic_state

// What a register write asks of the other controllers.
struct ApicEffect {
  std::optional<InterruptMessage> ipi;       // to be delivered; `sender` is not filled in
  std::optional<std::uint8_t> ended_vector;  // end of an interrupt of any kind
  std::optional<std::uint8_t> eoi_vector;    // the same, of a level-triggered one: for the IOAPIC
};

// Register offsets of the local vector table.
enum class LocalVector : std::uint16_t {
  kTimer = 0x320,
  kThermal = 0x330,
  kPerformance = 0x340,
  kLint0 = 0x350,
  kLint1 = 0x360,
  kError = 0x370,
};

class LocalApic {
 public:
  // Power-up state. `id` is the initial APIC ID, any 32-bit value but ~0; one above 254 is reachable by physical
  // destination only. `bootstrap`: this is the BSP; its LINT0 starts as an unmasked ExtINT, as KVM's does.
  LocalApic(std::uint32_t id, bool bootstrap) noexcept;

  // INIT: all but the APIC ID, the mode and the base go back to power-up state. Pending events are dropped.
  void init_reset() noexcept;

  // --- IA32_APIC_BASE (MSR 0x1B)
  [[nodiscard]] std::uint64_t apic_base() const noexcept { return apic_base_; }
  // False: #GP, nothing changed. `from_host`: the VMM sets it, so that any legal mode may follow any other.
  // `physical_bits`: MAXPHYADDR, 36..52.
  [[nodiscard]] bool set_apic_base(std::uint64_t value, bool from_host, unsigned physical_bits = 48) noexcept;
  [[nodiscard]] bool hardware_enabled() const noexcept { return (apic_base_ & kApicBaseEnable) != 0; }
  [[nodiscard]] bool x2apic() const noexcept { return hardware_enabled() && (apic_base_ & kApicBaseX2apic) != 0; }
  [[nodiscard]] bool software_enabled() const noexcept;
  [[nodiscard]] Gpa mmio_base() const noexcept { return Gpa(apic_base_ & ~std::uint64_t{0xfff}); }

  // --- registers. `offset`: in the page, a multiple of 16; an unknown one reads 0 and is logged in the ESR.
  [[nodiscard]] std::uint32_t read(std::uint32_t offset, std::uint64_t now) noexcept;
  ApicEffect write(std::uint32_t offset, std::uint32_t value, std::uint64_t now) noexcept;
  // MSRs 0x800 .. 0x8FF. None: #GP.
  [[nodiscard]] std::optional<std::uint64_t> read_msr(std::uint32_t index, std::uint64_t now) const noexcept;
  [[nodiscard]] std::optional<ApicEffect> write_msr(std::uint32_t index, std::uint64_t value,
                                                    std::uint64_t now) noexcept;
  // IA32_TSC_DEADLINE (MSR 0x6E0), in ticks of `now`.
  [[nodiscard]] std::uint64_t tsc_deadline() const noexcept { return timer_.tsc_deadline(); }
  void set_tsc_deadline(std::uint64_t deadline) noexcept;
  // CR8, 0..15: bits 7:4 of the TPR.
  [[nodiscard]] unsigned cr8() const noexcept;
  void set_cr8(unsigned value) noexcept;

  // --- time, in TSC ticks
  void advance(std::uint64_t now) noexcept;
  void set_clock_forward(std::uint64_t ticks) noexcept { timer_.set_clock_forward(ticks); }
  [[nodiscard]] std::uint64_t next_deadline() const noexcept { return timer_.next_deadline(); }

  // --- messages
  // Whether a message with this destination field is for this APIC; shorthands are not looked at. `from_device`: from
  // an IOAPIC or an MSI, where 0xFF means all, also for x2APICs, when `broadcast_quirk` holds (KVM_CAP_X2APIC_API).
  [[nodiscard]] bool matches(std::uint32_t destination, bool logical, bool from_device,
                             bool broadcast_quirk = true) const noexcept;
  // Takes a message addressed here. False: not accepted (disabled, or a mode that has no effect).
  bool accept(DeliveryMode mode, std::uint8_t vector, bool level_triggered, bool asserted = true) noexcept;
  // A local source fires (PIC output on LINT0, NMI button on LINT1, performance counter).
  bool local_interrupt(LocalVector source) noexcept;
  // LINT0 passes the PIC's output on as an external interrupt.
  [[nodiscard]] bool takes_external_interrupts() const noexcept;

  // --- interrupts for the processor
  [[nodiscard]] std::uint8_t processor_priority() const noexcept;  // PPR
  // The vector that has a higher class than the PPR; none when nothing can be delivered.
  [[nodiscard]] std::optional<std::uint8_t> pending_vector() const noexcept;
  // INTA: moves pending_vector() from the IRR to the ISR.
  std::optional<std::uint8_t> acknowledge() noexcept;

  [[nodiscard]] bool nmi_pending() const noexcept { return nmi_pending_; }
  void set_nmi_pending(bool pending) noexcept { nmi_pending_ = pending; }
  [[nodiscard]] bool init_pending() const noexcept { return init_pending_; }
  // True once for each INIT; the APIC has been through init_reset() then. The SIPI that came after it stays.
  bool take_init() noexcept;
  [[nodiscard]] std::optional<std::uint8_t> sipi_pending() const noexcept { return sipi_pending_; }
  std::optional<std::uint8_t> take_sipi() noexcept;

  // Orders the candidates for a lowest-priority interrupt: the lowest value wins.
  [[nodiscard]] std::uint64_t arbitration_rank() const noexcept;
  void count_arbitration() noexcept { ++arbitrations_; }

  [[nodiscard]] std::uint32_t initial_id() const noexcept { return initial_id_; }

  // --- struct kvm_lapic_state (KVM_GET_LAPIC, KVM_SET_LAPIC). `wide_ids`: the ID register of an x2APIC holds all 32
  // bits (KVM_X2APIC_API_USE_32BIT_IDS), else the low 8 in bits 31:24. set_state() returns false, and changes nothing,
  // when an x2APIC's ID is not this one's. The TSC deadline is not part of it. APIC base must be set first.
  void get_state(std::span<std::byte, kApicStateSize> page, std::uint64_t now, bool wide_ids) const noexcept;
  [[nodiscard]] bool set_state(std::span<const std::byte, kApicStateSize> page, std::uint64_t now,
                               bool wide_ids) noexcept;

 private:
  // One bit a vector.
  class VectorSet {
   public:
    [[nodiscard]] bool test(unsigned vector) const noexcept { return (words_[vector / 32] >> (vector % 32) & 1) != 0; }
    void set(unsigned vector) noexcept { words_[vector / 32] |= std::uint32_t{1} << (vector % 32); }
    void clear(unsigned vector) noexcept { words_[vector / 32] &= ~(std::uint32_t{1} << (vector % 32)); }
    [[nodiscard]] std::optional<std::uint8_t> highest() const noexcept;
    // 0..7; vectors 32 * index and up
    [[nodiscard]] std::uint32_t word(unsigned index) const noexcept { return words_[index]; }
    void set_word(unsigned index, std::uint32_t value) noexcept { words_[index] = value; }

   private:
    std::array<std::uint32_t, 8> words_{};
  };

  static constexpr unsigned kLocalVectors = 6;  // LocalVector, in the order of their registers

  void reset_registers() noexcept;
  [[nodiscard]] std::uint32_t id_register() const noexcept;
  [[nodiscard]] std::uint32_t ldr_register() const noexcept;
  [[nodiscard]] std::uint32_t& lvt(LocalVector entry) noexcept;
  [[nodiscard]] std::uint32_t lvt(LocalVector entry) const noexcept;
  [[nodiscard]] std::optional<std::uint32_t> read_register(std::uint32_t offset, std::uint64_t now) const noexcept;
  [[nodiscard]] bool write_register(std::uint32_t offset, std::uint32_t value, std::uint64_t now,
                                    ApicEffect& effect) noexcept;
  void write_svr(std::uint32_t value) noexcept;
  void write_lvt(LocalVector entry, std::uint32_t value) noexcept;
  [[nodiscard]] std::optional<InterruptMessage> send_icr() noexcept;
  void end_of_interrupt(ApicEffect& effect) noexcept;
  void log_error(std::uint32_t bit) noexcept;

  std::uint32_t initial_id_;
  std::uint64_t apic_base_;
  std::uint32_t id_ = 0;  // register 0x20: xAPIC ID in bits 31:24; in x2APIC mode initial_id_ is read instead
  std::uint32_t tpr_ = 0;
  std::uint32_t ldr_ = 0;  // in x2APIC mode derived from initial_id_
  std::uint32_t dfr_ = 0;
  std::uint32_t svr_ = 0;
  std::uint32_t esr_ = 0;         // as last latched by a write
  std::uint32_t esr_logged_ = 0;  // since then
  std::uint64_t icr_ = 0;         // high half: xAPIC destination in bits 63:56, x2APIC in 63:32
  std::array<std::uint32_t, kLocalVectors> lvt_{};
  VectorSet irr_;
  VectorSet isr_;
  VectorSet tmr_;
  ApicTimer timer_;
  bool nmi_pending_ = false;
  bool init_pending_ = false;
  std::optional<std::uint8_t> sipi_pending_;
  std::uint32_t arbitrations_ = 0;  // lowest-priority interrupts taken, to share them out
};

}  // namespace sevisor::emulator
