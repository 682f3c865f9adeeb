// All interrupt controllers of one VM, as KVM_CREATE_IRQCHIP and KVM_CREATE_PIT2 put them into the kernel: the local
// APICs of the vCPUs, an IOAPIC, a PIC pair and, on request, a PIT. It carries messages between them, answers for their
// registers, and says which events each vCPU has to take. A split one (KVM_CAP_SPLIT_IRQCHIP) has the local APICs only.
//
// Time is in TSC ticks of 1 ns and comes in through advance() only; the registers are read and written at that time.
// A vCPU is named by its index, in the order of add_vcpu(). Not for use by several threads at once.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "base/address.hpp"
#include "emulator/irqchip/gsi_routing.hpp"
#include "emulator/irqchip/local_apic.hpp"
#include "emulator/irqchip/pic.hpp"
#include "emulator/irqchip/pit.hpp"
#include "interrupts/interrupt_message.hpp"
#include "interrupts/io_apic.hpp"

namespace sevisor::emulator {

using interrupts::IoApic;
using interrupts::kIoApicBase;
using interrupts::kIoApicPins;
using interrupts::kIoApicStateSize;
using interrupts::kIoApicWindow;

inline constexpr std::uint32_t kMsrApicBase = 0x1b;
inline constexpr std::uint32_t kMsrTscDeadline = 0x6e0;

// The numbers of struct kvm_irqchip.chip_id.
enum class Chip : std::uint8_t { kPicMaster = 0, kPicSlave = 1, kIoApic = 2 };
inline constexpr std::size_t kChipStateSize = 512;  // kvm_irqchip.chip

inline constexpr int kIgnored = -1;

// Each can hold a line up; a line is high while any of them does.
enum class LineSource : std::uint8_t { kUserspace = 0, kPit = 1, kResample = 2 };

class Irqchip {
 public:
  explicit Irqchip(std::uint64_t now = 0);
  // The routes of GSIs below `io_apic_pins` are those of an IOAPIC in user space, which is told of the ends of their
  // level-triggered interrupts.
  [[nodiscard]] static Irqchip split(std::uint64_t now, std::uint32_t io_apic_pins);
  [[nodiscard]] bool is_split() const noexcept { return split_pins_.has_value(); }

  // KVM_CREATE_PIT2; `port_61`: KVM_PIT_SPEAKER_DUMMY. False when there is one already.
  bool create_pit(bool port_61);
  [[nodiscard]] bool has_pit() const noexcept { return pit_.has_value(); }
  // The first vCPU is the BSP unless `bootstrap` says otherwise. `apic_id`: KVM's vcpu_id. Returns the vCPU's index.
  unsigned add_vcpu(std::uint32_t apic_id);
  unsigned add_vcpu(std::uint32_t apic_id, bool bootstrap);
  [[nodiscard]] unsigned vcpus() const noexcept { return static_cast<unsigned>(apics_.size()); }
  // KVM_CAP_X2APIC_API: KVM_X2APIC_API_USE_32BIT_IDS and KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK.
  void set_x2apic_api(bool wide_ids, bool no_broadcast_quirk) noexcept;

  [[nodiscard]] bool wide_ids() const noexcept { return wide_ids_; }

  // --- time
  [[nodiscard]] std::uint64_t now() const noexcept { return now_; }
  // `now` never goes back; an earlier one is taken as no time passing. Timers that are due fire.
  void advance(std::uint64_t now);
  // now() jumps ahead, and no time has passed: what is left of the counts of timers stays. A TSC deadline is a time,
  // and stays what it is.
  void set_clock_forward(std::uint64_t ticks);
  // When a timer next fires, kNoDeadline when none is set. Not later than now() only between a change and advance().
  [[nodiscard]] std::uint64_t next_deadline() const noexcept { return deadline_; }

  // --- registers, as a vCPU accesses them. False: no controller has this address or port, nothing done.
  // MMIO: 1..8 bytes at an address without the C-bit. Sizes and alignments that KVM ignores read as zeros.
  bool read_mmio(unsigned vcpu, Gpa address, std::span<std::byte> data);
  bool write_mmio(unsigned vcpu, Gpa address, std::span<const std::byte> data);
  // One byte a port; wider accesses are the caller's to split, as the PC's bus does.
  [[nodiscard]] static bool is_pic_port(std::uint16_t port) noexcept { return PicPair::owns_port(port); }
  bool read_port(std::uint16_t port, std::uint8_t& value);
  bool write_port(std::uint16_t port, std::uint8_t value);
  // 0x1B, 0x6E0 and 0x800..0x8FF.
  [[nodiscard]] static bool owns_msr(std::uint32_t index) noexcept;
  // None and false: #GP. `from_host`: by KVM_GET/SET_MSRS or SREGS.
  [[nodiscard]] std::optional<std::uint64_t> read_msr(unsigned vcpu, std::uint32_t index);
  [[nodiscard]] bool write_msr(unsigned vcpu, std::uint32_t index, std::uint64_t value, bool from_host = false);
  [[nodiscard]] unsigned cr8(unsigned vcpu) const { return apics_.at(vcpu).cr8(); }
  void set_cr8(unsigned vcpu, unsigned value) { apics_.at(vcpu).set_cr8(value); }

  // --- interrupts of devices
  // KVM_SET_GSI_ROUTING. False: not valid, nothing changed.
  [[nodiscard]] bool set_routes(std::vector<GsiRoute> routes);
  // KVM_IRQ_LINE. Returns what KVM_IRQ_LINE_STATUS does: how many vCPUs and PICs took it, 0 when it coalesced with one
  // that is still pending, kIgnored when masked or without a route. A line that goes low: 1 for each pin.
  int set_gsi(std::uint32_t gsi, bool level, LineSource source = LineSource::kUserspace);
  // KVM_IRQFD_FLAG_RESAMPLE: when the guest ends an interrupt of a watched GSI, LineSource::kResample lets go of its
  // line, and the GSI is among the next acknowledged ones, in the order in which they ended.
  void watch_acknowledgements(std::vector<std::uint32_t> gsis) { watched_gsis_ = std::move(gsis); }
  [[nodiscard]] std::vector<std::uint32_t> take_acknowledged() { return std::exchange(acknowledged_, {}); }
  // KVM_EXIT_IOAPIC_EOI: the vector that the vCPU has ended since the last call, if user space's IOAPIC has to know.
  std::optional<std::uint8_t> take_ended(unsigned vcpu) { return std::exchange(ended_.at(vcpu), std::nullopt); }
  // KVM_SIGNAL_MSI. Returns how many vCPUs took it.
  int signal_msi(std::uint64_t address, std::uint32_t data);
  // Any message, to whom it concerns. Returns how many vCPUs took it.
  int deliver(const InterruptMessage& message);

  // --- what a vCPU has to take
  // An external interrupt: from the PIC through LINT0 first, else from the local APIC.
  [[nodiscard]] bool interrupt_pending(unsigned vcpu) const;
  // INTA: the vector, which is in service from now on; none when nothing is pending.
  std::optional<std::uint8_t> acknowledge(unsigned vcpu);
  [[nodiscard]] bool nmi_pending(unsigned vcpu) const { return apics_.at(vcpu).nmi_pending(); }
  bool take_nmi(unsigned vcpu);
  void raise_nmi(unsigned vcpu) { apics_.at(vcpu).set_nmi_pending(true); }
  [[nodiscard]] bool init_pending(unsigned vcpu) const { return apics_.at(vcpu).init_pending(); }
  // The vCPU's local APIC has been reset when this returns true.
  bool take_init(unsigned vcpu);
  [[nodiscard]] std::optional<std::uint8_t> sipi_pending(unsigned vcpu) const { return apics_.at(vcpu).sipi_pending(); }
  // A SIPI that comes before the INIT was taken stays; one without an INIT is the caller's to drop.
  std::optional<std::uint8_t> take_sipi(unsigned vcpu) { return apics_.at(vcpu).take_sipi(); }
  // Any of the four: what wakes a halted vCPU (interrupts disabled or not is the caller's to look at).
  [[nodiscard]] bool event_pending(unsigned vcpu) const;

  // --- state, in the layouts of <linux/kvm.h>
  // KVM_GET_LAPIC, KVM_SET_LAPIC; false: EINVAL.
  void get_lapic(unsigned vcpu, std::span<std::byte, kApicStateSize> state) const;
  [[nodiscard]] bool set_lapic(unsigned vcpu, std::span<const std::byte, kApicStateSize> state);
  // KVM_GET_IRQCHIP, KVM_SET_IRQCHIP: the union `chip`, zero-filled after the chip's own struct.
  void get_chip(Chip chip, std::span<std::byte, kChipStateSize> state) const;
  void set_chip(Chip chip, std::span<const std::byte, kChipStateSize> state);
  // KVM_GET_PIT2, KVM_SET_PIT2; false: there is no PIT.
  [[nodiscard]] bool get_pit(std::span<std::byte, kPitStateSize> state) const;
  [[nodiscard]] bool set_pit(std::span<const std::byte, kPitStateSize> state);

  [[nodiscard]] const LocalApic& apic(unsigned vcpu) const { return apics_.at(vcpu); }

 private:
  void apply(unsigned vcpu, const ApicEffect& effect);
  [[nodiscard]] bool addresses(const InterruptMessage& message, unsigned vcpu) const;
  int set_pic_line(unsigned irq, bool level, LineSource source);
  int set_io_apic_pin(unsigned pin, bool level, LineSource source);
  void deliver_due_pins();
  [[nodiscard]] bool user_space_must_know(unsigned vcpu, std::uint8_t vector, bool level_triggered) const;
  void notify_ended(RouteTarget chip, std::uint32_t pins);
  void notify_pic_ended();
  // LINT0 of every local APIC follows the PIC's output.
  void follow_pic_output();
  void refresh_deadline() noexcept;
  // After a register of a timer may have been written: what is due at once fires.
  void timers_changed();

  std::uint64_t now_;
  std::uint64_t deadline_ = kNoDeadline;
  bool wide_ids_ = false;
  bool broadcast_quirk_ = true;
  std::vector<LocalApic> apics_;
  IoApic io_apic_;
  PicPair pic_;
  std::optional<Pit> pit_;
  std::vector<GsiRoute> routes_ = default_gsi_routes();
  std::array<std::uint8_t, 16> pic_lines_{};  // who holds the line up: one bit a LineSource
  std::array<std::uint8_t, kIoApicPins> io_apic_lines_{};
  bool pic_output_ = false;
  std::optional<std::uint32_t> split_pins_;
  std::vector<std::optional<std::uint8_t>> ended_;  // of each vCPU, for take_ended()
  std::vector<std::uint32_t> watched_gsis_;
  std::vector<std::uint32_t> acknowledged_;
};

}  // namespace sevisor::emulator
