// KVM_REGISTER_COALESCED_MMIO. Errnos and the number of zones were read from a live Linux 6.18 kernel.
#include "ghcb/ioio.hpp"
#include "tests/emulator_kvm/run_fixture.hpp"

using namespace sevisor;
using namespace sevisor::test;
using emulator::RunControls;

namespace {

kvm_coalesced_mmio_zone zone(std::uint64_t address, std::uint32_t size, std::uint32_t pio = 0) {
  kvm_coalesced_mmio_zone made{};
  made.addr = address;
  made.size = size;
  made.pio = pio;
  return made;
}

struct Coalesced : RunFixture {
  Coalesced() : RunFixture(2) {}
  // As a program of C sees it: two indices, then entries of 24 bytes (Linux include/uapi/linux/kvm.h).
  std::byte* ring(unsigned vcpu = 0) { return reinterpret_cast<std::byte*>(runs[vcpu]) + 2 * 4096; }
  std::uint32_t first() { return load<std::uint32_t>(ring()); }
  std::uint32_t last() { return load<std::uint32_t>(ring() + 4); }
  kvm_coalesced_mmio entry(unsigned index) { return load<kvm_coalesced_mmio>(ring() + 8 + index * 24); }
};

}  // namespace

TEST_CASE_METHOD(HostFixture, "zones of coalesced writes: errors") {
  CHECK(call(kvm_fd, KVM_CHECK_EXTENSION, static_cast<unsigned long>(KVM_CAP_COALESCED_MMIO)) == 2);
  CHECK(call_with(vm, KVM_REGISTER_COALESCED_MMIO, zone(0x1000, 16, 2)) == -EINVAL);
  CHECK(call_with(vm, KVM_UNREGISTER_COALESCED_MMIO, zone(0x1000, 16, 2)) == -EINVAL);
  CHECK(call_with(vm, KVM_UNREGISTER_COALESCED_MMIO, zone(0x1000, 16)) == 0);
  CHECK(call(vm, KVM_REGISTER_COALESCED_MMIO) == -EFAULT);
  REQUIRE(call(vm, KVM_CREATE_IRQCHIP) == 0);
  int made = 0;
  int result = 0;
  while (made < 2000 && (result = call_with(vm, KVM_REGISTER_COALESCED_MMIO, zone(0x1000, 16))) == 0) ++made;
  CHECK(result == -ENOSPC);
  CHECK(made == 999);  // the IOAPIC is the thousandth device
  CHECK(call_with(vm, KVM_REGISTER_COALESCED_MMIO, zone(0x1000, 16, 1)) == 0);
}

TEST_CASE_METHOD(Coalesced, "writes in a zone wait in the ring, which all vCPUs show") {
  REQUIRE(call_with(vm, KVM_REGISTER_COALESCED_MMIO, zone(0xd0000000, 0x10)) == 0);
  REQUIRE(call_with(vm, KVM_REGISTER_COALESCED_MMIO, zone(0x70, 1, 1)) == 0);
  int step = 0;
  set_guest_code(0, [&](Guest& guest, const RunControls&) {
    switch (step++) {
      case 0:
        return write_mmio(guest, 0xd0000004, std::uint32_t{0x11223344});
      case 1:
        return ask(guest, ghcb::kExitIoio, encode(ghcb::IoAccess{.port = 0x70}), 0, 0x8f);
      case 2:
        return write_mmio(guest, 0xd0000008, std::uint64_t{5});
      case 3:  // reaches beyond the zone
        return write_mmio(guest, 0xd000000c, std::uint64_t{6});
      case 4:
        return ask(guest, ghcb::kExitIoio, encode(ghcb::IoAccess{.port = 0x70, .size = 2}), 0, 1);
      case 5:
        return ask(guest, ghcb::kExitMmioRead, 0xd0000000, 4);
      default:
        return exit_with(ghcb::kExitShutdown);
    }
  });
  CHECK(run() == 0);
  REQUIRE(state().exit_reason == KVM_EXIT_MMIO);
  CHECK(state().mmio.phys_addr == 0xd000000c);
  CHECK(first() == 0);
  REQUIRE(last() == 3);
  CHECK(entry(0).phys_addr == 0xd0000004);
  CHECK(entry(0).len == 4);
  CHECK(entry(0).pio == 0);
  CHECK(load<std::uint32_t>(entry(0).data) == 0x11223344);
  CHECK(entry(1).phys_addr == 0x70);
  CHECK(entry(1).len == 1);
  CHECK(entry(1).pio == 1);
  CHECK(entry(1).data[0] == 0x8f);
  CHECK(entry(2).len == 8);
  CHECK(std::memcmp(ring(0), ring(1), 4096) == 0);
  store(ring(1), std::uint32_t{3});
  CHECK(first() == 3);
  CHECK(run() == 0);
  CHECK(state().exit_reason == KVM_EXIT_IO);
  CHECK(run() == 0);
  CHECK(state().mmio.is_write == 0);
  CHECK(last() == 3);
}

TEST_CASE_METHOD(Coalesced, "a full ring sends the write to user space; indices out of bounds hurt nobody") {
  REQUIRE(call_with(vm, KVM_REGISTER_COALESCED_MMIO, zone(0xd0000000, 0x1000)) == 0);
  std::uint32_t value = 0;
  set_guest_code(0, [&](Guest& guest, const RunControls&) { return write_mmio(guest, 0xd0000000, value++); });
  CHECK(run() == 0);
  CHECK(state().exit_reason == KVM_EXIT_MMIO);
  CHECK(load<std::uint32_t>(state().mmio.data) == 169);  // (4096 - 8) / 24 = 170 entries, one of which stays free
  CHECK(last() == 169);
  store(ring(), std::uint32_t{100});
  CHECK(run() == 0);
  CHECK(load<std::uint32_t>(state().mmio.data) == 270);
  CHECK(last() == 99);
  store(ring() + 4, std::uint32_t{170});
  CHECK(run() == 0);
  CHECK(load<std::uint32_t>(state().mmio.data) == 271);
  store(ring(), std::uint32_t{0xffffffff});
  store(ring() + 4, std::uint32_t{168});
  state().immediate_exit = 0;
  set_guest_code(0, nullptr);
}

TEST_CASE_METHOD(Coalesced, "a zone is given up by any range in it") {
  REQUIRE(call_with(vm, KVM_REGISTER_COALESCED_MMIO, zone(0xd0000000, 0x100)) == 0);
  REQUIRE(call_with(vm, KVM_REGISTER_COALESCED_MMIO, zone(0xd0000000, 0x100, 1)) == 0);
  REQUIRE(call_with(vm, KVM_UNREGISTER_COALESCED_MMIO, zone(0xd0000080, 0x81)) == 0);
  int step = 0;
  set_guest_code(0, [&](Guest& guest, const RunControls&) {
    return step++ < 2 ? write_mmio(guest, 0xd0000000, 1) : exit_with(ghcb::kExitShutdown);
  });
  CHECK(run() == 0);
  CHECK(state().exit_reason == KVM_EXIT_SHUTDOWN);
  CHECK(last() == 2);
  REQUIRE(call_with(vm, KVM_UNREGISTER_COALESCED_MMIO, zone(0xd0000080, 4)) == 0);
  step = 1;
  CHECK(run() == 0);
  CHECK(state().exit_reason == KVM_EXIT_MMIO);
}
