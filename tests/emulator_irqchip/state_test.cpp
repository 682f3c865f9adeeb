// The state that KVM_GET/SET_LAPIC, _IRQCHIP and _PIT2 carry: layouts of <linux/kvm.h>, and round trips.
#include <array>
#include <catch2/catch.hpp>
#include <linux/kvm.h>

#include "base/bytes.hpp"
#include "emulator/irqchip/apic_registers.hpp"
#include "emulator/irqchip/irqchip.hpp"

using namespace sevisor;
using namespace sevisor::emulator;

static_assert(sizeof(kvm_lapic_state) == kApicStateSize);
static_assert(sizeof(kvm_ioapic_state) == kIoApicStateSize);
static_assert(sizeof(kvm_pic_state) == kPicStateSize);
static_assert(sizeof(kvm_pit_state2) == kPitStateSize);

namespace {

using LapicPage = std::array<std::byte, kApicStateSize>;
using ChipState = std::array<std::byte, kChipStateSize>;
using PitState = std::array<std::byte, kPitStateSize>;

void apic_write(Irqchip& chip, unsigned vcpu, std::uint32_t offset, std::uint32_t value) {
  std::array<std::byte, 4> data{};
  store(data.data(), value);
  REQUIRE(chip.write_mmio(vcpu, Gpa(kApicBaseDefault + offset), data));
}

std::uint32_t page_field(const LapicPage& page, std::uint32_t offset) {
  return load<std::uint32_t>(page.data() + offset);
}

LapicPage lapic_of(const Irqchip& chip, unsigned vcpu) {
  LapicPage page{};
  chip.get_lapic(vcpu, page);
  return page;
}

}  // namespace

TEST_CASE("The LAPIC page of an xAPIC goes round, with its running timer") {
  Irqchip chip;
  chip.add_vcpu(0);
  chip.add_vcpu(3);
  apic_write(chip, 1, apic::kSvr, 0x1ef);
  apic_write(chip, 1, apic::kLdr, 0x08000000);
  apic_write(chip, 1, apic::kDivide, 0x3);
  apic_write(chip, 1, 0x320, 0x20022);
  apic_write(chip, 1, apic::kInitialCount, 1000);
  apic_write(chip, 1, apic::kTpr, 0x10);
  chip.signal_msi(0xfee03000, 0x8062);
  chip.signal_msi(0xfee03000, 0x0055);
  CHECK(chip.acknowledge(1) == 0x62);
  chip.advance(160);
  const LapicPage page = lapic_of(chip, 1);
  CHECK(page_field(page, apic::kId) == 0x03000000);
  CHECK(page_field(page, apic::kVersion) == 0x00050014);
  CHECK(page_field(page, apic::kTpr) == 0x10);
  CHECK(page_field(page, apic::kPpr) == 0x60);
  CHECK(page_field(page, apic::kLdr) == 0x08000000);
  CHECK(page_field(page, apic::kSvr) == 0x1ef);
  CHECK(page_field(page, apic::kIsr + 0x30) == 1U << 2);
  CHECK(page_field(page, apic::kTmr + 0x30) == 1U << 2);
  CHECK(page_field(page, apic::kIrr + 0x20) == 1U << 0x15);
  CHECK(page_field(page, 0x320) == 0x20022);
  CHECK(page_field(page, apic::kInitialCount) == 1000);
  CHECK(page_field(page, apic::kCurrentCount) == 990);
  CHECK(page_field(page, apic::kDivide) == 3);

  Irqchip other(1'000'000);
  other.add_vcpu(0);
  other.add_vcpu(3);
  REQUIRE(other.set_lapic(1, page));
  CHECK(lapic_of(other, 1) == page);
  CHECK(other.next_deadline() == 1'000'000 + 990 * 16);
  apic_write(other, 1, apic::kEoi, 0);
  CHECK(other.acknowledge(1) == 0x55);
}

TEST_CASE("A BSP that was never touched keeps its open LINT0") {
  Irqchip chip;
  chip.add_vcpu(0);
  const LapicPage page = lapic_of(chip, 0);
  CHECK(page_field(page, 0x350) == 0x700);
  REQUIRE(chip.set_lapic(0, page));
  CHECK(lapic_of(chip, 0) == page);
}

TEST_CASE("The LAPIC page of an x2APIC has its ID as asked for") {
  Irqchip chip;
  chip.add_vcpu(0);
  chip.add_vcpu(0x137);
  REQUIRE(chip.write_msr(1, kMsrApicBase, kApicBaseDefault | kApicBaseEnable | kApicBaseX2apic));
  REQUIRE(chip.write_msr(1, 0x80f, 0x1ff));
  REQUIRE(chip.write_msr(1, 0x830, 0x00000000'000040f3));
  const LapicPage narrow = lapic_of(chip, 1);
  CHECK(page_field(narrow, apic::kId) == 0x37000000);
  CHECK(page_field(narrow, apic::kLdr) == 0x00130080);
  chip.set_x2apic_api(true, false);
  const LapicPage wide = lapic_of(chip, 1);
  CHECK(page_field(wide, apic::kId) == 0x137);
  CHECK_FALSE(chip.set_lapic(1, narrow));
  CHECK(chip.set_lapic(1, wide));
  CHECK(lapic_of(chip, 1) == wide);
  CHECK(chip.read_msr(1, 0x830) == 0x40f3);
}

TEST_CASE("The IOAPIC's state has KVM's layout and goes round") {
  Irqchip chip;
  chip.add_vcpu(0);
  apic_write(chip, 0, apic::kSvr, 0x1ff);
  const auto ioapic_write = [](Irqchip& to, std::uint64_t offset, std::uint32_t value) {
    std::array<std::byte, 4> data{};
    store(data.data(), value);
    REQUIRE(to.write_mmio(0, Gpa(kIoApicBase + offset), data));
  };
  ioapic_write(chip, 0, 0);
  ioapic_write(chip, 0x10, 0x05000000);
  ioapic_write(chip, 0, 0x10 + 2 * 9);
  ioapic_write(chip, 0x10, 0x8064);
  CHECK(chip.set_gsi(9, true) == 2);  // the PIC takes it too
  ChipState state{};
  chip.get_chip(Chip::kIoApic, state);
  const auto ioapic = load<kvm_ioapic_state>(state.data());
  CHECK(ioapic.base_address == 0xfec00000);
  CHECK(ioapic.ioregsel == 0x22);
  CHECK(ioapic.id == 5);
  CHECK(ioapic.irr == 1U << 9);
  CHECK(ioapic.redirtbl[9].fields.vector == 0x64);
  CHECK(ioapic.redirtbl[9].fields.trig_mode == 1);
  CHECK(ioapic.redirtbl[9].fields.remote_irr == 1);
  CHECK(ioapic.redirtbl[9].fields.mask == 0);
  CHECK(ioapic.redirtbl[8].fields.mask == 1);

  Irqchip other;
  other.add_vcpu(0);
  apic_write(other, 0, apic::kSvr, 0x1ff);
  other.set_chip(Chip::kIoApic, state);
  ChipState again{};
  other.get_chip(Chip::kIoApic, again);
  CHECK(again == state);
  CHECK_FALSE(other.interrupt_pending(0));  // it is in service: Remote IRR says so
  // A saved pin that is high and was not sent yet is sent.
  auto unsent = ioapic;
  unsent.redirtbl[9].fields.remote_irr = 0;
  store(again.data(), unsent);
  other.set_chip(Chip::kIoApic, again);
  CHECK(other.acknowledge(0) == 0x64);
}

TEST_CASE("The PICs' state has KVM's layout and goes round") {
  Irqchip chip;
  chip.add_vcpu(0);
  for (const auto& [port, value] : std::array<std::pair<std::uint16_t, std::uint8_t>, 7>{
           {{0x20, 0x11}, {0x21, 0x50}, {0x21, 0x04}, {0x21, 0x03}, {0x21, 0xe1}, {0x4d0, 0x20}, {0x20, 0x0b}}}) {
    REQUIRE(chip.write_port(port, value));
  }
  chip.set_gsi(3, true);
  ChipState state{};
  chip.get_chip(Chip::kPicMaster, state);
  const auto pic = load<kvm_pic_state>(state.data());
  CHECK(pic.last_irr == 0x08);
  CHECK(pic.irr == 0x08);
  CHECK(pic.imr == 0xe1);
  CHECK(pic.isr == 0);
  CHECK(pic.irq_base == 0x50);
  CHECK(pic.read_reg_select == 1);
  CHECK(pic.init_state == 0);
  CHECK(pic.auto_eoi == 1);
  CHECK(pic.init4 == 1);
  CHECK(pic.elcr == 0x20);
  CHECK(pic.elcr_mask == 0xf8);

  Irqchip other;
  other.add_vcpu(0);
  other.set_chip(Chip::kPicMaster, state);
  ChipState again{};
  other.get_chip(Chip::kPicMaster, again);
  CHECK(again == state);
  CHECK(other.acknowledge(0) == 0x53);
  other.get_chip(Chip::kPicSlave, again);
  CHECK(load<kvm_pic_state>(again.data()).elcr_mask == 0xde);
}

TEST_CASE("The PIT's state has KVM's layout; setting it loads the counts anew") {
  Irqchip chip;
  chip.add_vcpu(0);
  PitState state{};
  CHECK_FALSE(chip.get_pit(state));
  CHECK_FALSE(chip.set_pit(state));
  REQUIRE(chip.create_pit(true));
  REQUIRE(chip.get_pit(state));
  CHECK(load<kvm_pit_state2>(state.data()).channels[0].mode == 0xff);
  CHECK(load<kvm_pit_state2>(state.data()).channels[0].count == 0x10000);
  chip.advance(1'000'000);
  chip.write_port(0x43, 0x34);
  chip.write_port(0x40, 0x00);
  chip.write_port(0x40, 0x20);
  chip.write_port(0x43, 0xb6);
  chip.write_port(0x42, 0x34);  // the high byte is still to come
  chip.write_port(0x61, 0x03);
  chip.advance(3'000'000);
  chip.write_port(0x43, 0x00);
  std::uint8_t latched_low = 0;
  REQUIRE(chip.read_port(0x40, latched_low));
  REQUIRE(chip.get_pit(state));
  const auto pit = load<kvm_pit_state2>(state.data());
  CHECK(pit.channels[0].count == 0x2000);
  CHECK(pit.channels[0].mode == 2);
  CHECK(pit.channels[0].rw_mode == 3);
  CHECK(pit.channels[0].count_latched == 2);
  CHECK((pit.channels[0].latched_count & 0xff) == latched_low);
  CHECK(pit.channels[0].count_load_time >= 1'000'000);
  CHECK(pit.channels[0].count_load_time <= 1'001'000);
  CHECK(pit.channels[2].mode == 3);
  CHECK(pit.channels[2].write_state == 4);
  CHECK(pit.channels[2].write_latch == 0x34);
  CHECK(pit.channels[2].gate == 1);
  CHECK(pit.flags == KVM_PIT_FLAGS_SPEAKER_DATA_ON);

  Irqchip other(5'000'000);
  other.add_vcpu(0);
  REQUIRE(other.create_pit(true));
  REQUIRE(other.set_pit(state));
  std::uint8_t value = 0;
  REQUIRE(other.read_port(0x40, value));
  CHECK(value == pit.channels[0].latched_count >> 8);
  REQUIRE(other.read_port(0x61, value));
  CHECK((value & 0x03) == 0x03);
  CHECK(other.next_deadline() - 5'000'000 >= 0x2000ULL * 1'000'000'000 / kPitFrequency);
  CHECK(other.next_deadline() - 5'000'000 <= 0x2002ULL * 1'000'000'000 / kPitFrequency);
}
