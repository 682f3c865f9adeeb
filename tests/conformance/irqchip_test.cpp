// The interrupt controllers' own calls. Linux arch/x86/kvm/x86.c kvm_arch_vm_ioctl(), irq_comm.c.
#include <array>

#include "guests.hpp"

using namespace sevisor;
using namespace sevisor::conformance;

namespace {

int split(const Rig& rig, std::uint64_t routes, std::uint32_t flags = 0) {
  kvm_enable_cap cap{};
  cap.cap = KVM_CAP_SPLIT_IRQCHIP;
  cap.flags = flags;
  cap.args[0] = routes;
  return answer(rig.of_vm(), KVM_ENABLE_CAP, &cap);
}

struct OneRoute {
  kvm_irq_routing header{.nr = 1, .flags = 0, .entries = {}};
  kvm_irq_routing_entry entry{};
};
OneRoute route_to(std::uint32_t gsi, std::uint32_t chip, std::uint32_t pin) {
  OneRoute route;
  route.entry.gsi = gsi;
  route.entry.type = KVM_IRQ_ROUTING_IRQCHIP;
  route.entry.u.irqchip = {.irqchip = chip, .pin = pin};
  return route;
}
OneRoute msi_route(std::uint32_t gsi) {
  OneRoute route;
  route.entry.gsi = gsi;
  route.entry.type = KVM_IRQ_ROUTING_MSI;
  route.entry.u.msi.address_lo = 0xfee00000;
  route.entry.u.msi.data = 0x40;
  return route;
}

}  // namespace

TEST_CASE("without controllers in the host") {
  Rig rig;
  rig.add_vcpu();
  CHECK(answer_to(rig.of_vm(), KVM_IRQ_LINE, kvm_irq_level{{4}, 1}) == -ENXIO);
  CHECK(answer_to(rig.of_vm(), KVM_IRQ_LINE_STATUS, kvm_irq_level{{4}, 1}) == -ENXIO);
  CHECK(answer_to(rig.of_vm(), KVM_CREATE_PIT2, kvm_pit_config{}) == -ENOENT);
  CHECK(answer_to(rig.of_vm(), KVM_GET_IRQCHIP, kvm_irqchip{}) == -ENXIO);
  CHECK(answer_to(rig.of_vm(), KVM_SET_IRQCHIP, kvm_irqchip{}) == -ENXIO);
  CHECK(answer_to(rig.of_vm(), KVM_GET_PIT2, kvm_pit_state2{}) == -ENXIO);
  CHECK(answer_to(rig.of_vm(), KVM_SIGNAL_MSI, kvm_msi{}) == -EINVAL);
  CHECK(answer_to(rig.of_vm(), KVM_SET_GSI_ROUTING, msi_route(5)) == -EINVAL);
  CHECK(answer_to(rig.of_vcpu(), KVM_GET_LAPIC, kvm_lapic_state{}) == -EINVAL);
  CHECK(answer_to(rig.of_vcpu(), KVM_SET_LAPIC, kvm_lapic_state{}) == -EINVAL);
}

TEST_CASE("with controllers in the host") {
  Rig rig(Rig::Chips::kInKernel);
  CHECK(answer(rig.of_vm(), KVM_CREATE_IRQCHIP) == -EEXIST);
  CHECK(split(rig, 24) == -EEXIST);
  CHECK(answer_to(rig.of_vm(), KVM_GET_PIT2, kvm_pit_state2{}) == -ENXIO);
  CHECK(answer_to(rig.of_vm(), KVM_CREATE_PIT2, kvm_pit_config{}) == 0);
  CHECK(answer_to(rig.of_vm(), KVM_CREATE_PIT2, kvm_pit_config{}) == -EEXIST);
  CHECK(answer_to(rig.of_vm(), KVM_GET_PIT2, kvm_pit_state2{}) == 0);
  CHECK(answer_to(rig.of_vm(), KVM_IRQ_LINE, kvm_irq_level{{4}, 1}) == 0);
  for (std::uint32_t chip = 0; chip < 3; ++chip) {
    kvm_irqchip state{};
    state.chip_id = chip;
    CHECK(answer(rig.of_vm(), KVM_GET_IRQCHIP, &state) == 0);
    CHECK(answer(rig.of_vm(), KVM_SET_IRQCHIP, &state) == 0);
  }
  kvm_irqchip none{};
  none.chip_id = 3;
  CHECK(answer(rig.of_vm(), KVM_GET_IRQCHIP, &none) == -EINVAL);
  CHECK(answer(rig.of_vm(), KVM_SET_IRQCHIP, &none) == -EINVAL);
}

TEST_CASE("an IOAPIC's line is remembered in its state") {
  Rig rig(Rig::Chips::kInKernel);
  kvm_irqchip ioapic{};
  ioapic.chip_id = KVM_IRQCHIP_IOAPIC;
  REQUIRE(answer(rig.of_vm(), KVM_GET_IRQCHIP, &ioapic) == 0);
  CHECK(ioapic.chip.ioapic.base_address == 0xfec00000);
  for (unsigned i = 0; i < 24; ++i) CHECK(ioapic.chip.ioapic.redirtbl[i].fields.mask == 1);
  kvm_irq_level line{{9}, 1};
  CHECK(answer(rig.of_vm(), KVM_IRQ_LINE_STATUS, &line) == 0);
  REQUIRE(answer(rig.of_vm(), KVM_GET_IRQCHIP, &ioapic) == 0);
  note("IOAPIC IRR after a raised line", ioapic.chip.ioapic.irr);
}

TEST_CASE("the controllers come before the vCPUs") {
  Rig rig;
  rig.add_vcpu();
  CHECK(answer(rig.of_vm(), KVM_CREATE_IRQCHIP) == -EINVAL);
  CHECK(split(rig, 24) == -EEXIST);
}

TEST_CASE("routes of GSIs") {
  Rig rig(Rig::Chips::kInKernel);
  CHECK(answer_to(rig.of_vm(), KVM_SET_GSI_ROUTING, route_to(5, KVM_IRQCHIP_IOAPIC, 5)) == 0);
  CHECK(answer_to(rig.of_vm(), KVM_SET_GSI_ROUTING, route_to(4095, KVM_IRQCHIP_IOAPIC, 5)) == 0);
  CHECK(answer_to(rig.of_vm(), KVM_SET_GSI_ROUTING, route_to(4096, KVM_IRQCHIP_IOAPIC, 5)) == -EINVAL);
  CHECK(answer_to(rig.of_vm(), KVM_SET_GSI_ROUTING, route_to(5, KVM_IRQCHIP_IOAPIC, 24)) == -EINVAL);
  CHECK(answer_to(rig.of_vm(), KVM_SET_GSI_ROUTING, route_to(5, KVM_IRQCHIP_PIC_MASTER, 8)) == -EINVAL);
  CHECK(answer_to(rig.of_vm(), KVM_SET_GSI_ROUTING, route_to(5, 3, 1)) == -EINVAL);
  CHECK(answer_to(rig.of_vm(), KVM_SET_GSI_ROUTING, msi_route(30)) == 0);
  OneRoute wrong = msi_route(30);
  wrong.header.flags = 1;
  CHECK(answer(rig.of_vm(), KVM_SET_GSI_ROUTING, &wrong) == -EINVAL);
  wrong = msi_route(30);
  wrong.entry.type = 99;
  CHECK(answer(rig.of_vm(), KVM_SET_GSI_ROUTING, &wrong) == -EINVAL);
  struct {
    kvm_irq_routing header{.nr = 2, .flags = 0, .entries = {}};
    kvm_irq_routing_entry entries[2]{};
  } twice;
  twice.entries[0] = twice.entries[1] = msi_route(7).entry;
  CHECK(answer(rig.of_vm(), KVM_SET_GSI_ROUTING, &twice) == -EINVAL);  // an MSI shares its GSI with nothing
  kvm_msi msi{};
  msi.flags = 1 << 5;
  CHECK(answer(rig.of_vm(), KVM_SIGNAL_MSI, &msi) == -EINVAL);
}

TEST_CASE("the split kind: local APICs in the host alone") {
  Rig rig;
  CHECK(split(rig, 24, 1) == -EINVAL);
  CHECK(split(rig, 4097) == -EINVAL);
  CHECK(split(rig, 24) == 0);
  CHECK(split(rig, 24) == -EEXIST);
  CHECK(answer(rig.of_vm(), KVM_CREATE_IRQCHIP) == -EEXIST);
  CHECK(answer_to(rig.of_vm(), KVM_CREATE_PIT2, kvm_pit_config{}) == -ENOENT);
  CHECK(answer_to(rig.of_vm(), KVM_GET_IRQCHIP, kvm_irqchip{}) == -ENXIO);
  CHECK(answer_to(rig.of_vm(), KVM_IRQ_LINE, kvm_irq_level{{4}, 1}) == 0);
  CHECK(answer_to(rig.of_vm(), KVM_SET_GSI_ROUTING, route_to(5, KVM_IRQCHIP_IOAPIC, 5)) == -EINVAL);
  CHECK(answer_to(rig.of_vm(), KVM_SET_GSI_ROUTING, msi_route(5)) == 0);
  rig.add_vcpu();
  CHECK(answer_to(rig.of_vcpu(), KVM_GET_LAPIC, kvm_lapic_state{}) == 0);
  kvm_mp_state state{KVM_MP_STATE_HALTED};
  CHECK(answer(rig.of_vcpu(), KVM_SET_MP_STATE, &state) == 0);
}

TEST_CASE("x2APIC's ways of numbering") {
  const Rig rig(Rig::Chips::kInKernel);
  kvm_enable_cap cap{};
  cap.cap = KVM_CAP_X2APIC_API;
  cap.args[0] = KVM_X2APIC_API_USE_32BIT_IDS | KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK;
  CHECK(answer(rig.of_vm(), KVM_ENABLE_CAP, &cap) == 0);
  cap.args[0] = 1 << 20;
  CHECK(answer(rig.of_vm(), KVM_ENABLE_CAP, &cap) == -EINVAL);
  cap = {};
  cap.cap = 9999;
  CHECK(answer(rig.of_vm(), KVM_ENABLE_CAP, &cap) == -EINVAL);
}

TEST_CASE("the VM's clock") {
  const Rig rig;
  kvm_clock_data data{};
  REQUIRE(answer(rig.of_vm(), KVM_GET_CLOCK, &data) == 0);
  data.clock = std::uint64_t{1} << 40;
  data.flags = 0;
  REQUIRE(answer(rig.of_vm(), KVM_SET_CLOCK, &data) == 0);
  CHECK(rig.vm.clock_ns().value() >= std::uint64_t{1} << 40);
  data.flags = 1 << 15;
  CHECK(answer(rig.of_vm(), KVM_SET_CLOCK, &data) == -EINVAL);
}
