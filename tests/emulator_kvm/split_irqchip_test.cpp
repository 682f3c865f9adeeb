// KVM_CAP_SPLIT_IRQCHIP: local APICs in the host, the rest in user space. Errnos were read from a live Linux 6.18
// kernel.
#include "ghcb/ioio.hpp"
#include "tests/emulator_kvm/run_fixture.hpp"

using namespace sevisor;
using namespace sevisor::test;
using emulator::RunControls;

namespace {

constexpr std::uint32_t kPins = 24;

int split(HostFixture& host, std::uint64_t pins, std::uint32_t flags = 0) {
  kvm_enable_cap cap{};
  cap.cap = KVM_CAP_SPLIT_IRQCHIP;
  cap.flags = flags;
  cap.args[0] = pins;
  return host.call(host.vm, KVM_ENABLE_CAP, &cap);
}

struct Route {
  kvm_irq_routing header{};
  kvm_irq_routing_entry entry{};
  Route(std::uint32_t gsi, std::uint32_t data) {
    header.nr = 1;
    entry.gsi = gsi;
    entry.type = KVM_IRQ_ROUTING_MSI;
    entry.u.msi.address_lo = 0xfee00000;
    entry.u.msi.data = data;
  }
  int set(HostFixture& host) { return host.call(host.vm, KVM_SET_GSI_ROUTING, &header); }
};

struct Split : RunFixture {
  Split() : RunFixture(1, kPins) {}
  int signal(std::uint32_t data) {
    kvm_msi msi{};
    msi.address_lo = 0xfee00000;
    msi.data = data;
    return call(vm, KVM_SIGNAL_MSI, &msi);
  }
  int line(std::uint32_t gsi, std::uint32_t level) {
    kvm_irq_level request{};
    request.irq = gsi;
    request.level = level;
    const int result = call(vm, KVM_IRQ_LINE_STATUS, &request);
    return result == 0 ? request.status : result;
  }
  // A guest that enables its APIC, takes one interrupt, ends it and shuts down.
  std::vector<std::uint64_t> injected;
  int step = 0;
  void take_one() {
    set_guest_code(0, [this](Guest& guest, const RunControls& controls) {
      guest.spend(1);
      if (controls.event_injection != 0) injected.push_back(controls.event_injection);
      switch (step++) {
        case 0:
          return write_mmio(guest, 0xfee000f0, std::uint32_t{0x1ff});
        case 1:
          guest.interrupts = true;
          return ask(guest, ghcb::kExitIoio, encode(ghcb::IoAccess{.port = 0x80}), 0);
        case 2:
          return write_mmio(guest, 0xfee000b0, std::uint32_t{0});
        default:
          return exit_with(ghcb::kExitShutdown);
      }
    });
  }
};

}  // namespace

TEST_CASE_METHOD(HostFixture, "a split irqchip is made once, before vCPUs") {
  CHECK(call(kvm_fd, KVM_CHECK_EXTENSION, 121ul) == 1);
  CHECK(split(*this, 4097) == -EINVAL);
  CHECK(split(*this, 24, 1) == -EINVAL);
  CHECK(split(*this, 4096) == 0);
  CHECK(split(*this, 24) == -EEXIST);
  CHECK(split(*this, 4097) == -EINVAL);
  CHECK(call(vm, KVM_CREATE_IRQCHIP) == -EEXIST);
}

TEST_CASE_METHOD(HostFixture, "no split irqchip beside a whole one, or behind a vCPU") {
  const int other = call(kvm_fd, KVM_CREATE_VM, 0ul);
  REQUIRE(call(vm, KVM_CREATE_IRQCHIP) == 0);
  CHECK(split(*this, 24) == -EEXIST);
  vm = other;
  REQUIRE(call(vm, KVM_CREATE_VCPU, 0ul) >= 0);
  CHECK(split(*this, 24) == -EEXIST);
}

TEST_CASE_METHOD(HostFixture, "what a split irqchip has not") {
  REQUIRE(split(*this, kPins) == 0);
  kvm_irqchip chip{};
  CHECK(call(vm, KVM_GET_IRQCHIP, &chip) == -ENXIO);
  CHECK(call(vm, KVM_SET_IRQCHIP, &chip) == -ENXIO);
  CHECK(call_with(vm, KVM_CREATE_PIT2, kvm_pit_config{}) == -ENOENT);
  kvm_pit_state2 pit{};
  CHECK(call(vm, KVM_GET_PIT2, &pit) == -ENXIO);
  CHECK(call(vm, KVM_SET_PIT2, &pit) == -ENXIO);
  kvm_irq_level line{};
  line.irq = 4;
  line.level = 1;
  CHECK(call(vm, KVM_IRQ_LINE, &line) == 0);
  CHECK(call(vm, KVM_IRQ_LINE_STATUS, &line) == 0);
  CHECK(line.status == -1);
  Route route(4, 0x31);
  CHECK(route.set(*this) == 0);
  route.entry.type = KVM_IRQ_ROUTING_IRQCHIP;
  CHECK(route.set(*this) == -EINVAL);
  route.entry.type = KVM_IRQ_ROUTING_MSI;
  route.entry.flags = 8;
  CHECK(route.set(*this) == -EINVAL);
  route.entry.flags = 0;
  route.entry.u.msi.address_hi = 1;
  CHECK(route.set(*this) == 0);
  kvm_enable_cap cap{};
  cap.cap = KVM_CAP_X2APIC_API;
  cap.args[0] = KVM_X2APIC_API_USE_32BIT_IDS;
  REQUIRE(call(vm, KVM_ENABLE_CAP, &cap) == 0);
  CHECK(route.set(*this) == -EINVAL);
}

TEST_CASE_METHOD(Split, "ports and registers of the chips in user space exit") {
  int local = 0;
  set_guest_code(0, [&](Guest& guest, const RunControls&) {
    switch (local++) {
      case 0:
        return ask(guest, ghcb::kExitIoio, encode(ghcb::IoAccess{.port = 0x21}), 0, 0xff);
      case 1:
        return ask(guest, ghcb::kExitIoio, encode(ghcb::IoAccess{.port = 0x43, .in = true}), 0);
      case 2:
        return ask(guest, ghcb::kExitMmioRead, 0xfec00010, 4);
      case 3:
        return write_mmio(guest, 0xfec00000, std::uint32_t{1});
      case 4:
        return ask(guest, ghcb::kExitMmioRead, 0xfee00030, 4);
      default:
        return exit_with(ghcb::kExitShutdown);
    }
  });
  for (const std::uint32_t reason : {KVM_EXIT_IO, KVM_EXIT_IO, KVM_EXIT_MMIO, KVM_EXIT_MMIO, KVM_EXIT_SHUTDOWN}) {
    CHECK(run() == 0);
    CHECK(state().exit_reason == reason);
  }
}

TEST_CASE_METHOD(Split, "the end of a level-triggered interrupt of a pin goes to user space") {
  Route route(4, 0xc031);
  REQUIRE(route.set(*this) == 0);
  take_one();
  CHECK(run() == 0);
  REQUIRE(state().exit_reason == KVM_EXIT_IO);
  CHECK(signal(0xc031) == 1);
  CHECK(run() == 0);
  REQUIRE(state().exit_reason == KVM_EXIT_IOAPIC_EOI);
  CHECK(state().eoi.vector == 0x31);
  CHECK(injected == std::vector<std::uint64_t>{0x80000031});
  CHECK(run() == 0);
  CHECK(state().exit_reason == KVM_EXIT_SHUTDOWN);
}

TEST_CASE_METHOD(Split, "other ends stay in the host") {
  struct Case {
    const char* what;
    std::uint32_t gsi, routed, signalled;
  };
  const Case cases[] = {{"another vector", 4, 0xc032, 0xc031},
                        {"an edge-triggered route", 4, 0x31, 0xc031},
                        {"a GSI that is no pin", kPins, 0xc031, 0xc031}};
  const Case& c = cases[GENERATE(0, 1, 2)];
  INFO(c.what);
  Route route(c.gsi, c.routed);
  REQUIRE(route.set(*this) == 0);
  take_one();
  CHECK(run() == 0);
  CHECK(signal(c.signalled) == 1);
  CHECK(run() == 0);
  CHECK(state().exit_reason == KVM_EXIT_SHUTDOWN);
  CHECK(injected == std::vector<std::uint64_t>{0x80000031});
}

TEST_CASE_METHOD(Split, "a line with an MSI route sends it each time it is raised") {
  Route route(4, 0x31);
  REQUIRE(route.set(*this) == 0);
  CHECK(line(4, 1) == -1);  // the APIC is off
  take_one();
  CHECK(run() == 0);
  CHECK(line(4, 1) == 1);
  CHECK(line(4, 0) == -1);
  CHECK(line(5, 1) == -1);
  CHECK(run() == 0);
  CHECK(injected == std::vector<std::uint64_t>{0x80000031});
}
