// Intel SDM vol. 3, "Advanced Programmable Interrupt Controller"; AMD APM vol. 2, chapter 16.
#include "emulator/irqchip/local_apic.hpp"

#include <array>
#include <catch2/catch.hpp>

#include "emulator/irqchip/apic_registers.hpp"

using namespace sevisor::emulator;

namespace {

constexpr std::uint64_t kX2apicOn = kApicBaseDefault | kApicBaseEnable | kApicBaseX2apic;

LocalApic enabled_apic(std::uint32_t id = 1) {
  LocalApic apic(id, false);
  apic.write(apic::kSvr, 0x1ff, 0);
  return apic;
}

LocalApic enabled_x2apic(std::uint32_t id) {
  LocalApic apic(id, false);
  REQUIRE(apic.set_apic_base(kX2apicOn, false));
  REQUIRE(apic.write_msr(0x80f, 0x1ff, 0));
  return apic;
}

}  // namespace

TEST_CASE("Power-up state is the manual's") {
  LocalApic apic(5, false);
  CHECK(apic.apic_base() == 0xfee00800);
  CHECK(apic.read(apic::kId, 0) == 0x05000000);
  CHECK(apic.read(apic::kVersion, 0) == 0x00050014);
  CHECK(apic.read(apic::kTpr, 0) == 0);
  CHECK(apic.read(apic::kLdr, 0) == 0);
  CHECK(apic.read(apic::kDfr, 0) == 0xffffffff);
  CHECK(apic.read(apic::kSvr, 0) == 0xff);
  for (std::uint32_t lvt = apic::kLvtFirst; lvt <= apic::kLvtLast; lvt += 16) CHECK(apic.read(lvt, 0) == 0x10000);
  for (std::uint32_t reg = apic::kIsr; reg < apic::kEsr; reg += 16) CHECK(apic.read(reg, 0) == 0);
  CHECK(apic.read(apic::kIcrLow, 0) == 0);
  CHECK(apic.read(apic::kInitialCount, 0) == 0);
  CHECK(apic.read(apic::kDivide, 0) == 0);

  LocalApic bsp(0, true);
  CHECK(bsp.apic_base() == 0xfee00900);
  CHECK(bsp.read(0x350, 0) == 0x700);  // KVM's: ExtINT, not masked
  CHECK(bsp.takes_external_interrupts());
  CHECK_FALSE(apic.takes_external_interrupts());
}

TEST_CASE("Interrupts go by priority class, EOI ends the highest") {
  LocalApic apic = enabled_apic();
  for (const std::uint8_t vector : std::array<std::uint8_t, 4>{0x31, 0x51, 0x52, 0xef})
    CHECK(apic.accept(DeliveryMode::kFixed, vector, false));
  CHECK(apic.read(apic::kIrr + 0x10, 0) == 1U << 0x11);
  CHECK(apic.read(apic::kIrr + 0x20, 0) == (1U << 0x11 | 1U << 0x12));
  CHECK(apic.read(apic::kIrr + 0x70, 0) == 1U << 0x0f);
  CHECK(apic.acknowledge() == 0xef);
  CHECK(apic.read(apic::kPpr, 0) == 0xe0);
  CHECK(apic.read(apic::kIsr + 0x70, 0) == 1U << 0x0f);
  CHECK_FALSE(apic.pending_vector());
  apic.write(apic::kEoi, 0, 0);
  CHECK(apic.acknowledge() == 0x52);
  CHECK_FALSE(apic.pending_vector());  // 0x51 is of the same class
  CHECK(apic.accept(DeliveryMode::kFixed, 0x61, false));
  CHECK(apic.acknowledge() == 0x61);
  CHECK(apic.read(apic::kPpr, 0) == 0x60);
  apic.write(apic::kEoi, 0, 0);
  CHECK(apic.read(apic::kPpr, 0) == 0x50);
  apic.write(apic::kEoi, 0, 0);
  CHECK(apic.acknowledge() == 0x51);
  apic.write(apic::kEoi, 0, 0);
  CHECK(apic.acknowledge() == 0x31);
  apic.write(apic::kEoi, 0, 0);
  CHECK_FALSE(apic.acknowledge());
  apic.write(apic::kEoi, 0, 0);  // with nothing in service: no effect
  CHECK(apic.read(apic::kPpr, 0) == 0);
}

TEST_CASE("The task priority holds interrupts of its class and below") {
  LocalApic apic = enabled_apic();
  apic.accept(DeliveryMode::kFixed, 0x4f, false);
  apic.write(apic::kTpr, 0x40, 0);
  CHECK_FALSE(apic.pending_vector());
  CHECK(apic.cr8() == 4);
  apic.set_cr8(3);
  CHECK(apic.read(apic::kTpr, 0) == 0x30);
  CHECK(apic.pending_vector() == 0x4f);
  // PPR is the TPR itself when its class is not below that in service.
  apic.acknowledge();
  apic.write(apic::kTpr, 0x45, 0);
  CHECK(apic.read(apic::kPpr, 0) == 0x45);
  apic.write(apic::kTpr, 0x35, 0);
  CHECK(apic.read(apic::kPpr, 0) == 0x40);
}

TEST_CASE("A software-disabled APIC takes no interrupts but NMI, INIT and SIPI, and masks its LVT") {
  LocalApic apic(1, false);
  CHECK_FALSE(apic.accept(DeliveryMode::kFixed, 0x40, false));
  CHECK(apic.accept(DeliveryMode::kNmi, 0, false));
  CHECK(apic.accept(DeliveryMode::kInit, 0, false));
  CHECK(apic.accept(DeliveryMode::kStartup, 0x9a, false));
  apic.write(apic::kSvr, 0x1ff, 0);
  apic.write(0x320, 0x00040, 0);
  CHECK(apic.read(0x320, 0) == 0x40);
  apic.write(apic::kSvr, 0x0ff, 0);
  CHECK(apic.read(0x320, 0) == 0x10040);
  apic.write(0x320, 0x00041, 0);
  CHECK(apic.read(0x320, 0) == 0x10041);
}

TEST_CASE("EOI of a level-triggered interrupt is told, of an edge-triggered one is not") {
  LocalApic apic = enabled_apic();
  apic.accept(DeliveryMode::kFixed, 0x60, true);
  CHECK(apic.read(apic::kTmr + 0x30, 0) == 1);
  apic.acknowledge();
  CHECK(apic.write(apic::kEoi, 0, 0).eoi_vector == 0x60);
  apic.accept(DeliveryMode::kFixed, 0x60, false);
  CHECK(apic.read(apic::kTmr + 0x30, 0) == 0);
  apic.acknowledge();
  CHECK_FALSE(apic.write(apic::kEoi, 0, 0).eoi_vector);
}

TEST_CASE("The ICR sends what it says") {
  LocalApic apic = enabled_apic();
  apic.write(apic::kIcrHigh, 0x07000000, 0);
  const auto fixed = apic.write(apic::kIcrLow, 0x000040fd, 0).ipi;
  REQUIRE(fixed);
  CHECK(fixed->destination == 7);
  CHECK(fixed->mode == DeliveryMode::kFixed);
  CHECK(fixed->vector == 0xfd);
  CHECK(fixed->shorthand == Shorthand::kNone);
  CHECK_FALSE(fixed->logical);
  CHECK(apic.read(apic::kIcrHigh, 0) == 0x07000000);
  CHECK((apic.read(apic::kIcrLow, 0) & 1 << 12) == 0);  // delivery status: idle

  const auto init = apic.write(apic::kIcrLow, 0x000c4500, 0).ipi;
  REQUIRE(init);
  CHECK(init->mode == DeliveryMode::kInit);
  CHECK(init->shorthand == Shorthand::kAllButSelf);
  CHECK(init->asserted);
  const auto deassert = apic.write(apic::kIcrLow, 0x00088500, 0).ipi;
  REQUIRE(deassert);
  CHECK_FALSE(deassert->asserted);
  const auto sipi = apic.write(apic::kIcrLow, 0x000c4699, 0).ipi;
  REQUIRE(sipi);
  CHECK(sipi->mode == DeliveryMode::kStartup);
  CHECK(sipi->vector == 0x99);
  CHECK(apic.write(apic::kIcrLow, 0x00004cf0, 0).ipi->logical);
}

TEST_CASE("Illegal vectors and registers are logged in the ESR, and raise the error interrupt once") {
  LocalApic apic = enabled_apic();
  apic.write(0x370, 0xfe, 0);
  CHECK_FALSE(apic.write(apic::kIcrLow, 0x0000400f, 0).ipi);
  CHECK(apic.read(apic::kEsr, 0) == 0);  // latched by a write only
  CHECK(apic.acknowledge() == 0xfe);
  apic.write(apic::kEoi, 0, 0);
  apic.write(apic::kIcrLow, 0x0000400f, 0);
  CHECK_FALSE(apic.pending_vector());
  CHECK_FALSE(apic.accept(DeliveryMode::kFixed, 0x0f, false));
  CHECK(apic.acknowledge() == 0xfe);
  apic.write(apic::kEoi, 0, 0);
  CHECK(apic.read(0x2f0, 0) == 0);  // no CMCI entry
  apic.write(apic::kEsr, 0, 0);
  CHECK(apic.read(apic::kEsr, 0) == (1 << 5 | 1 << 6 | 1 << 7));
  apic.write(apic::kEsr, 0, 0);
  CHECK(apic.read(apic::kEsr, 0) == 0);
  // An illegal vector in the error entry itself does not recurse.
  apic.write(0x370, 0x05, 0);
  CHECK(apic.read(0x3f0, 0) == 0);
  apic.write(apic::kEsr, 0, 0);
  CHECK(apic.read(apic::kEsr, 0) == (1 << 6 | 1 << 7));
}

TEST_CASE("Flat and cluster logical destinations") {
  LocalApic apic = enabled_apic();
  apic.write(apic::kLdr, 0x24000000, 0);
  CHECK(apic.matches(0x04, true, false));
  CHECK(apic.matches(0x20, true, false));
  CHECK(apic.matches(0x3c, true, false));
  CHECK_FALSE(apic.matches(0xdb, true, false));
  apic.write(apic::kDfr, 0x00000000, 0);
  CHECK(apic.read(apic::kDfr, 0) == 0x0fffffff);
  CHECK(apic.matches(0x24, true, false));
  CHECK(apic.matches(0x2f, true, false));
  CHECK_FALSE(apic.matches(0x2b, true, false));
  CHECK_FALSE(apic.matches(0x34, true, false));
  CHECK(apic.matches(0xff, true, false));
}

TEST_CASE("Physical destinations") {
  LocalApic apic = enabled_apic(9);
  CHECK(apic.matches(9, false, false));
  CHECK_FALSE(apic.matches(8, false, false));
  CHECK(apic.matches(0xff, false, false));
  LocalApic wide(300, false);  // in xAPIC mode until it has been started
  CHECK(wide.matches(300, false, false));
  CHECK_FALSE(wide.matches(300 & 0xff, false, false));
}

TEST_CASE("APIC base follows the manual's state transitions") {
  constexpr std::uint64_t kDisabled = kApicBaseDefault;
  constexpr std::uint64_t kXapicOn = kApicBaseDefault | kApicBaseEnable;
  LocalApic apic(1, false);
  CHECK_FALSE(apic.set_apic_base(kApicBaseDefault | kApicBaseX2apic, false));  // EXTD without EN
  CHECK_FALSE(apic.set_apic_base(kXapicOn | 1 << 9, false));
  CHECK_FALSE(apic.set_apic_base(kXapicOn | 1, false));
  CHECK_FALSE(apic.set_apic_base(kXapicOn | std::uint64_t{1} << 48, false));
  CHECK(apic.apic_base() == kXapicOn);
  CHECK(apic.set_apic_base(kX2apicOn, false));
  CHECK(apic.x2apic());
  CHECK_FALSE(apic.set_apic_base(kXapicOn, false));
  CHECK(apic.set_apic_base(kDisabled, false));
  CHECK_FALSE(apic.hardware_enabled());
  CHECK_FALSE(apic.accept(DeliveryMode::kNmi, 0, false));
  CHECK(apic.takes_external_interrupts());
  CHECK_FALSE(apic.set_apic_base(kX2apicOn, false));
  CHECK(apic.set_apic_base(kXapicOn, false));
  CHECK(apic.set_apic_base(kX2apicOn, false));
  CHECK(apic.set_apic_base(kXapicOn, true));  // the host may
}

TEST_CASE("x2APIC registers are MSRs") {
  LocalApic xapic = enabled_apic();
  CHECK_FALSE(xapic.read_msr(0x802, 0));
  CHECK_FALSE(xapic.write_msr(0x80b, 0, 0));

  LocalApic apic = enabled_x2apic(0x12345);
  CHECK(apic.read_msr(0x802, 0) == 0x12345);
  CHECK(apic.read_msr(0x803, 0) == 0x00050014);
  CHECK(apic.read_msr(0x80d, 0) == 0x12340020);  // cluster 0x1234, bit 5
  for (const std::uint32_t absent : {0x809, 0x80b, 0x80c, 0x80e, 0x831, 0x83f, 0x800, 0x8ff, 0x82f}) {
    CHECK_FALSE(apic.read_msr(absent, 0));
  }
  for (const std::uint32_t read_only : {0x802, 0x803, 0x80a, 0x80d, 0x810, 0x820, 0x839, 0x80e, 0x831}) {
    CHECK_FALSE(apic.write_msr(read_only, 0, 0));
  }
  CHECK_FALSE(apic.write_msr(0x80b, 1, 0));
  CHECK_FALSE(apic.write_msr(0x828, 1, 0));
  CHECK_FALSE(apic.write_msr(0x808, std::uint64_t{1} << 32, 0));
  CHECK(apic.write_msr(0x808, 0x20, 0));
  CHECK(apic.read_msr(0x808, 0) == 0x20);

  const auto effect = apic.write_msr(0x830, 0x00054321'000040f2, 0);
  REQUIRE(effect);
  REQUIRE(effect->ipi);
  CHECK(effect->ipi->destination == 0x54321);
  CHECK(effect->ipi->vector == 0xf2);
  CHECK(apic.read_msr(0x830, 0) == 0x00054321'000040f2);

  const auto self = apic.write_msr(0x83f, 0xf3, 0);
  REQUIRE(self);
  CHECK(self->ipi->shorthand == Shorthand::kSelf);
  CHECK(self->ipi->vector == 0xf3);
}

TEST_CASE("x2APIC destinations") {
  const LocalApic apic = enabled_x2apic(0x12345);
  CHECK(apic.matches(0x12345, false, false));
  CHECK_FALSE(apic.matches(0x45, false, false));
  CHECK(apic.matches(0xffffffff, false, false));
  CHECK_FALSE(apic.matches(0xff, false, false));
  CHECK(apic.matches(0xff, false, true));
  CHECK_FALSE(apic.matches(0xff, false, true, false));
  CHECK(apic.matches(0x12340020, true, false));
  CHECK(apic.matches(0x1234ffff, true, false));
  CHECK_FALSE(apic.matches(0x1234ffdf, true, false));
  CHECK_FALSE(apic.matches(0x12350020, true, false));
}

TEST_CASE("The timer entry delivers its vector") {
  LocalApic apic = enabled_apic();
  apic.write(apic::kDivide, 0xb, 0);
  apic.write(0x320, 0x20020, 0);  // periodic, vector 0x20: as OVMF sets it up
  apic.write(apic::kInitialCount, 10'000'000, 0);
  CHECK(apic.next_deadline() == 10'000'000);
  CHECK(apic.read(apic::kCurrentCount, 4'000'000) == 6'000'000);
  apic.advance(10'000'000);
  CHECK(apic.acknowledge() == 0x20);
  apic.write(apic::kEoi, 0, 10'000'001);
  CHECK(apic.next_deadline() == 20'000'000);
  apic.write(0x320, 0x30020, 10'000'001);  // masked: counts on, delivers nothing
  apic.advance(20'000'000);
  CHECK_FALSE(apic.pending_vector());
  CHECK(apic.next_deadline() == 30'000'000);
  apic.write(0x320, 0x400ec, 20'000'001);
  apic.set_tsc_deadline(25'000'000);
  CHECK(apic.next_deadline() == 25'000'000);
  apic.advance(25'000'000);
  CHECK(apic.acknowledge() == 0xec);
  CHECK(apic.tsc_deadline() == 0);
}

TEST_CASE("LINT1 and the performance entry deliver NMIs") {
  LocalApic apic = enabled_apic();
  CHECK_FALSE(apic.local_interrupt(LocalVector::kLint1));
  apic.write(0x360, 0x400, 0);
  CHECK(apic.local_interrupt(LocalVector::kLint1));
  CHECK(apic.nmi_pending());
  apic.set_nmi_pending(false);
  apic.write(0x340, 0x400, 0);
  CHECK(apic.local_interrupt(LocalVector::kPerformance));
  CHECK(apic.nmi_pending());
}

TEST_CASE("INIT resets all but ID, mode and base; the SIPI after it stays") {
  LocalApic apic = enabled_x2apic(70);
  (void)apic.write_msr(0x832, 0x400ec, 0);
  apic.set_tsc_deadline(500);
  apic.accept(DeliveryMode::kFixed, 0x55, false);
  apic.accept(DeliveryMode::kStartup, 0x11, false);
  CHECK(apic.accept(DeliveryMode::kInit, 0, false));
  CHECK_FALSE(apic.accept(DeliveryMode::kInit, 0, true, false));  // de-assert
  CHECK_FALSE(apic.sipi_pending());                               // the one before it is gone
  CHECK(apic.accept(DeliveryMode::kStartup, 0x9a, false));
  CHECK(apic.take_init());
  CHECK_FALSE(apic.take_init());
  CHECK(apic.x2apic());
  CHECK(apic.read_msr(0x802, 0) == 70);
  CHECK(apic.read_msr(0x80f, 0) == 0xff);
  CHECK(apic.read_msr(0x832, 0) == 0x10000);
  CHECK(apic.next_deadline() == kNoDeadline);
  CHECK_FALSE(apic.pending_vector());
  CHECK(apic.take_sipi() == 0x9a);
  CHECK_FALSE(apic.take_sipi());
}
