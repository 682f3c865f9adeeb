// The controllers together: routes, interprocessor interrupts, AP start, PIC and IOAPIC flows.
#include "emulator/irqchip/irqchip.hpp"

#include <array>
#include <catch2/catch.hpp>

#include "base/bytes.hpp"
#include "emulator/irqchip/apic_registers.hpp"

using namespace sevisor;
using namespace sevisor::emulator;

namespace {

constexpr std::uint64_t kLapic = 0xfee00000;
constexpr std::uint64_t kX2apicOn = kApicBaseDefault | kApicBaseEnable | kApicBaseX2apic;

std::uint32_t mmio_read(Irqchip& chip, unsigned vcpu, std::uint64_t address) {
  std::array<std::byte, 4> data{};
  REQUIRE(chip.read_mmio(vcpu, Gpa(address), data));
  return load<std::uint32_t>(data.data());
}

void mmio_write(Irqchip& chip, unsigned vcpu, std::uint64_t address, std::uint32_t value) {
  std::array<std::byte, 4> data{};
  store(data.data(), value);
  REQUIRE(chip.write_mmio(vcpu, Gpa(address), data));
}

void apic_write(Irqchip& chip, unsigned vcpu, std::uint32_t offset, std::uint32_t value) {
  mmio_write(chip, vcpu, kLapic + offset, value);
}

void eoi(Irqchip& chip, unsigned vcpu) { apic_write(chip, vcpu, apic::kEoi, 0); }

void send_ipi(Irqchip& chip, unsigned vcpu, std::uint32_t destination, std::uint32_t low) {
  apic_write(chip, vcpu, apic::kIcrHigh, destination << 24);
  apic_write(chip, vcpu, apic::kIcrLow, low);
}

void set_entry(Irqchip& chip, unsigned pin, std::uint64_t entry) {
  mmio_write(chip, 0, kIoApicBase, 0x11 + 2 * pin);
  mmio_write(chip, 0, kIoApicBase + 0x10, static_cast<std::uint32_t>(entry >> 32));
  mmio_write(chip, 0, kIoApicBase, 0x10 + 2 * pin);
  mmio_write(chip, 0, kIoApicBase + 0x10, static_cast<std::uint32_t>(entry));
}

Irqchip machine(unsigned vcpus) {
  Irqchip chip;
  for (unsigned id = 0; id < vcpus; ++id) {
    REQUIRE(chip.add_vcpu(id) == id);
    apic_write(chip, id, apic::kSvr, 0x1ff);
  }
  return chip;
}

Irqchip x2apic_machine(unsigned vcpus, std::uint32_t first_id = 0) {
  Irqchip chip;
  for (unsigned index = 0; index < vcpus; ++index) {
    chip.add_vcpu(first_id + index);
    REQUIRE(chip.write_msr(index, kMsrApicBase, kX2apicOn | (index == 0 ? kApicBaseBootstrap : 0)));
    REQUIRE(chip.write_msr(index, 0x80f, 0x1ff));
  }
  return chip;
}

void init_pics(Irqchip& chip) {
  for (const auto& [port, value] : std::array<std::pair<std::uint16_t, std::uint8_t>, 8>{{{0x20, 0x11},
                                                                                          {0x21, 0x30},
                                                                                          {0x21, 0x04},
                                                                                          {0x21, 0x01},
                                                                                          {0xa0, 0x11},
                                                                                          {0xa1, 0x38},
                                                                                          {0xa1, 0x02},
                                                                                          {0xa1, 0x01}}}) {
    REQUIRE(chip.write_port(port, value));
  }
}

}  // namespace

TEST_CASE("Addresses, ports and MSRs that are nobody's") {
  Irqchip chip = machine(1);
  std::array<std::byte, 4> data{};
  std::uint8_t value = 0;
  CHECK_FALSE(chip.read_mmio(0, Gpa(0xfee01000), data));
  CHECK_FALSE(chip.write_mmio(0, Gpa(0xfec00100), data));
  CHECK_FALSE(chip.read_port(0x40, value));  // no PIT yet
  CHECK(chip.create_pit(true));
  CHECK_FALSE(chip.create_pit(true));
  CHECK(chip.read_port(0x40, value));
  CHECK(chip.read_port(0x61, value));
  CHECK_FALSE(chip.write_port(0x3f8, 0));
  CHECK(Irqchip::owns_msr(0x1b));
  CHECK(Irqchip::owns_msr(0x6e0));
  CHECK(Irqchip::owns_msr(0x830));
  CHECK_FALSE(Irqchip::owns_msr(0x900));
}

TEST_CASE("LAPIC accesses of odd sizes and places") {
  Irqchip chip = machine(3);
  std::array<std::byte, 1> one{};
  CHECK(chip.read_mmio(2, Gpa(kLapic + apic::kId + 3), one));
  CHECK(one[0] == std::byte{2});
  std::array<std::byte, 8> eight{};
  eight.fill(std::byte{0xaa});
  CHECK(chip.read_mmio(2, Gpa(kLapic + apic::kId), eight));
  CHECK(load<std::uint64_t>(eight.data()) == 0);
  CHECK(chip.write_mmio(2, Gpa(kLapic + apic::kTpr), eight));
  CHECK(chip.write_mmio(2, Gpa(kLapic + apic::kTpr), std::array<std::byte, 1>{std::byte{0x40}}));
  CHECK(mmio_read(chip, 2, kLapic + apic::kTpr) == 0);
  // The page is a hole for an x2APIC.
  CHECK(chip.write_msr(2, kMsrApicBase, kX2apicOn));
  CHECK(mmio_read(chip, 2, kLapic + apic::kId) == 0xffffffff);
  // Each vCPU has its page where its APIC base is.
  CHECK(chip.write_msr(1, kMsrApicBase, 0xfed00000 | kApicBaseEnable));
  CHECK(mmio_read(chip, 1, 0xfed00000 + apic::kId) == 0x01000000);
  std::array<std::byte, 4> four{};
  CHECK_FALSE(chip.read_mmio(1, Gpa(kLapic), four));
}

TEST_CASE("Interprocessor interrupts by physical destination and shorthand") {
  Irqchip chip = machine(4);
  send_ipi(chip, 0, 2, 0x000040fb);
  CHECK_FALSE(chip.event_pending(1));
  CHECK(chip.event_pending(2));
  CHECK(chip.acknowledge(2) == 0xfb);
  eoi(chip, 2);
  send_ipi(chip, 1, 0, 0x000440fc);  // self
  CHECK(chip.acknowledge(1) == 0xfc);
  eoi(chip, 1);
  CHECK_FALSE(chip.interrupt_pending(0));
  send_ipi(chip, 3, 0, 0x000840fd);  // all
  for (unsigned vcpu = 0; vcpu < 4; ++vcpu) CHECK(chip.acknowledge(vcpu) == 0xfd);
  for (unsigned vcpu = 0; vcpu < 4; ++vcpu) eoi(chip, vcpu);
  send_ipi(chip, 3, 0, 0x000c40fe);  // all but self
  for (unsigned vcpu = 0; vcpu < 3; ++vcpu) CHECK(chip.acknowledge(vcpu) == 0xfe);
  CHECK_FALSE(chip.interrupt_pending(3));
  send_ipi(chip, 0, 0xff, 0x00004400);  // NMI to all
  for (unsigned vcpu = 0; vcpu < 4; ++vcpu) {
    CHECK(chip.take_nmi(vcpu));
    CHECK_FALSE(chip.take_nmi(vcpu));
  }
}

TEST_CASE("Lowest priority goes to the least busy, and is shared out among equals") {
  Irqchip chip = machine(4);
  for (unsigned vcpu = 0; vcpu < 4; ++vcpu) apic_write(chip, vcpu, apic::kLdr, 0x01000000U << vcpu);
  apic_write(chip, 0, apic::kTpr, 0x60);
  apic_write(chip, 1, apic::kTpr, 0x20);
  apic_write(chip, 2, apic::kTpr, 0x40);
  apic_write(chip, 3, apic::kSvr, 0xff);  // disabled: never chosen
  CHECK(chip.deliver({.destination = 0x0f,
                      .logical = true,
                      .mode = DeliveryMode::kLowestPriority,
                      .vector = 0x91,
                      .sender = {}}) == 1);
  CHECK(chip.acknowledge(1) == 0x91);
  CHECK_FALSE(chip.interrupt_pending(0));
  CHECK_FALSE(chip.interrupt_pending(2));

  Irqchip equal = machine(3);
  std::array<unsigned, 3> taken{};
  for (unsigned round = 0; round < 9; ++round) {
    CHECK(equal.signal_msi(0xfeeff00c, 0x0141) == 1);
    for (unsigned vcpu = 0; vcpu < 3; ++vcpu) {
      if (equal.acknowledge(vcpu)) {
        ++taken[vcpu];
        eoi(equal, vcpu);
      }
    }
  }
  CHECK(taken == std::array<unsigned, 3>{3, 3, 3});
}

TEST_CASE("INIT, SIPI, SIPI starts an AP") {
  Irqchip chip;
  chip.add_vcpu(0);
  chip.add_vcpu(1);
  send_ipi(chip, 0, 1, 0x0000c500);  // INIT, level assert
  CHECK(chip.init_pending(1));
  CHECK(chip.event_pending(1));
  CHECK_FALSE(chip.event_pending(0));
  send_ipi(chip, 0, 1, 0x00008500);  // de-assert: nothing
  CHECK(chip.take_init(1));
  CHECK_FALSE(chip.take_init(1));
  send_ipi(chip, 0, 1, 0x00004699);
  CHECK(chip.sipi_pending(1) == 0x99);
  CHECK(chip.take_sipi(1) == 0x99);
  send_ipi(chip, 0, 1, 0x0000469a);
  CHECK(chip.take_sipi(1) == 0x9a);
  CHECK_FALSE(chip.event_pending(1));
}

TEST_CASE("130 vCPUs in x2APIC mode, IDs beyond 255 too") {
  Irqchip chip = x2apic_machine(130, 200);
  CHECK(chip.read_msr(129, 0x802) == 329);
  CHECK(chip.write_msr(0, 0x830, std::uint64_t{329} << 32 | 0x40f0));
  for (unsigned vcpu = 0; vcpu < 130; ++vcpu) CHECK(chip.interrupt_pending(vcpu) == (vcpu == 129));
  CHECK(chip.acknowledge(129) == 0xf0);
  // Logical: cluster 20 is IDs 320..335; IDs 320, 322 and 329.
  CHECK(chip.write_msr(5, 0x830, std::uint64_t{20U << 16 | 0x205} << 32 | 0x48f1));
  for (unsigned vcpu = 0; vcpu < 129; ++vcpu) CHECK(chip.interrupt_pending(vcpu) == (vcpu == 120 || vcpu == 122));
  CHECK_FALSE(chip.interrupt_pending(129));  // same class as the one in service
  CHECK(chip.write_msr(129, 0x80b, 0));
  CHECK(chip.acknowledge(129) == 0xf1);
  // Broadcast.
  CHECK(chip.write_msr(5, 0x830, 0xffffffff'000040f8));
  for (unsigned vcpu = 0; vcpu < 129; ++vcpu) CHECK(chip.acknowledge(vcpu) == 0xf8);
  // Self IPI.
  CHECK(chip.write_msr(7, 0x80b, 0));
  CHECK(chip.write_msr(7, 0x83f, 0xf9));
  CHECK(chip.acknowledge(7) == 0xf9);
  // An MSI reaches a 32-bit ID by the address's high half only when user space asked for it.
  CHECK(chip.signal_msi(0x0000'0100'fee48000, 0x55) == 0);
  chip.set_x2apic_api(true, true);
  CHECK(chip.signal_msi(0x0000'0100'fee48000, 0x55) == 1);
  CHECK(chip.signal_msi(0xfeeff000, 0x56) == 1);  // 255 is an ID now, not a broadcast
}

TEST_CASE("A level-triggered device interrupt, from line to EOI") {
  Irqchip chip = machine(2);
  set_entry(chip, 10, 0x01000000'00008061);
  CHECK(chip.set_gsi(10, true) >= 1);
  CHECK(chip.acknowledge(1) == 0x61);
  CHECK((mmio_read(chip, 0, kIoApicBase + 0x10) & 1 << 14) != 0);  // Remote IRR
  eoi(chip, 1);                                                    // the line is still high: sent again
  CHECK(chip.acknowledge(1) == 0x61);
  chip.set_gsi(10, false);
  eoi(chip, 1);
  CHECK((mmio_read(chip, 0, kIoApicBase + 0x10) & 1 << 14) == 0);
  CHECK_FALSE(chip.event_pending(1));
}

TEST_CASE("An edge-triggered device interrupt, and what KVM_IRQ_LINE_STATUS says") {
  Irqchip chip = machine(2);
  CHECK(chip.set_gsi(20, true) == kIgnored);  // masked
  chip.set_gsi(20, false);
  set_entry(chip, 20, 0x44);
  CHECK(chip.set_gsi(20, true) == 1);
  CHECK(chip.set_gsi(20, true) == 0);
  chip.set_gsi(20, false);
  CHECK(chip.acknowledge(0) == 0x44);
  CHECK(chip.set_gsi(100, true) == kIgnored);  // no route
  // The line is high while either source holds it.
  eoi(chip, 0);
  chip.set_gsi(20, true, LineSource::kUserspace);
  CHECK(chip.acknowledge(0) == 0x44);
  CHECK(chip.set_gsi(20, true, LineSource::kPit) == 0);
  chip.set_gsi(20, false, LineSource::kUserspace);
  CHECK(chip.set_gsi(20, true, LineSource::kUserspace) == 0);
}

TEST_CASE("Routes can be replaced") {
  Irqchip chip = machine(2);
  CHECK_FALSE(chip.set_routes({{.gsi = 9999, .target = RouteTarget::kIoApic, .pin = 0}}));
  CHECK(chip.set_routes({{.gsi = 30, .target = RouteTarget::kMsi, .msi_address = 0xfee01000, .msi_data = 0x77}}));
  CHECK(chip.set_gsi(30, true) == 1);
  CHECK(chip.acknowledge(1) == 0x77);
  CHECK(chip.set_gsi(30, false) == kIgnored);
  CHECK(chip.set_gsi(4, true) == kIgnored);
}

TEST_CASE("The PIC interrupts the BSP through LINT0 until that is masked") {
  Irqchip chip = machine(2);
  init_pics(chip);
  chip.set_gsi(4, true);
  CHECK(chip.interrupt_pending(0));
  CHECK_FALSE(chip.interrupt_pending(1));
  apic_write(chip, 0, 0x350, 0x10700);
  CHECK_FALSE(chip.interrupt_pending(0));
  apic_write(chip, 0, 0x350, 0x00700);
  CHECK(chip.acknowledge(0) == 0x34);
  CHECK(chip.apic(0).processor_priority() == 0);  // the APIC has no part in it
  chip.write_port(0x20, 0x20);
  CHECK_FALSE(chip.interrupt_pending(0));
  // LINT0 as a fixed interrupt.
  chip.set_gsi(4, false);
  apic_write(chip, 0, 0x350, 0x00050);
  chip.set_gsi(4, true);
  CHECK(chip.acknowledge(0) == 0x50);
}

TEST_CASE("PIT channel 0 ticks on GSI 0") {
  Irqchip chip = machine(1);
  REQUIRE(chip.create_pit(true));
  REQUIRE(chip.write_port(0x21, 0xff));
  set_entry(chip, 0, 0x30);
  CHECK(chip.next_deadline() == kNoDeadline);
  chip.write_port(0x43, 0x34);
  chip.write_port(0x40, 11932 & 0xff);
  chip.write_port(0x40, 11932 >> 8);  // 100 Hz
  unsigned ticks = 0;
  while (chip.next_deadline() <= 1'000'000'000) {
    chip.advance(chip.next_deadline());
    if (chip.acknowledge(0) == 0x30) {
      ++ticks;
      eoi(chip, 0);
    }
  }
  CHECK(ticks == 99);  // 99.998 Hz
}

TEST_CASE("APIC timers of many vCPUs fire at their own times") {
  Irqchip chip = x2apic_machine(64);
  for (unsigned vcpu = 0; vcpu < 64; ++vcpu) {
    REQUIRE(chip.write_msr(vcpu, 0x832, 0x400ec));
    REQUIRE(chip.write_msr(vcpu, kMsrTscDeadline, 1000 + 10 * vcpu));
  }
  CHECK(chip.read_msr(63, kMsrTscDeadline) == 1630);
  for (unsigned vcpu = 0; vcpu < 64; ++vcpu) {
    REQUIRE(chip.next_deadline() == 1000 + 10 * vcpu);
    chip.advance(chip.next_deadline());
    CHECK(chip.acknowledge(vcpu) == 0xec);
    if (vcpu < 63) CHECK_FALSE(chip.interrupt_pending(vcpu + 1));
  }
  CHECK(chip.next_deadline() == kNoDeadline);
  chip.advance(5);  // an earlier time: none passes
  CHECK(chip.now() == 1630);
  // A deadline that is over fires without waiting for advance().
  REQUIRE(chip.write_msr(3, 0x80b, 0));
  REQUIRE(chip.write_msr(3, kMsrTscDeadline, 7));
  CHECK(chip.acknowledge(3) == 0xec);
}
