// irqfd, ioeventfd and coalesced accesses. Linux virt/kvm/eventfd.c, coalesced_mmio.c.
#include <cstring>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/bytes.hpp"
#include "base/unique_fd.hpp"
#include "guests.hpp"

using namespace sevisor;
using namespace sevisor::conformance;

namespace {

UniqueFd make_event() { return UniqueFd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)); }
std::uint64_t take(const UniqueFd& event) {
  std::uint64_t count = 0;
  return ::read(event.get(), &count, sizeof count) == sizeof count ? count : 0;
}

kvm_ioeventfd io(const UniqueFd& event, std::uint64_t at, std::uint32_t size, std::uint32_t flags,
                 std::uint64_t match = 0) {
  kvm_ioeventfd made{};
  made.datamatch = match;
  made.addr = at;
  made.len = size;
  made.fd = event.get();
  made.flags = flags;
  return made;
}
constexpr std::uint32_t kPio = KVM_IOEVENTFD_FLAG_PIO;
constexpr std::uint32_t kMatch = KVM_IOEVENTFD_FLAG_DATAMATCH;
constexpr std::uint32_t kDeassign = KVM_IOEVENTFD_FLAG_DEASSIGN;

}  // namespace

TEST_CASE("what an ioeventfd may be") {
  const Rig rig;
  const UniqueFd event = make_event();
  const auto assign = [&](const kvm_ioeventfd& args) { return answer_to(rig.of_vm(), KVM_IOEVENTFD, args); };
  for (const std::uint32_t size : {1U, 2U, 4U, 8U}) {
    INFO("size " << size);
    CHECK(assign(io(event, 0x1000 * size, size, 0)) == 0);
    CHECK(assign(io(event, 0x1000 * size, size, 0)) == -EEXIST);
    CHECK(assign(io(event, 0x1000 * size, size, kDeassign)) == 0);
    CHECK(assign(io(event, 0x1000 * size, size, kDeassign)) == -ENOENT);
  }
  CHECK(assign(io(event, 0x9000, 0, 0)) == 0);  // any length
  CHECK(assign(io(event, 0x9000, 3, 0)) == -EINVAL);
  CHECK(assign(io(event, 0x9000, 16, 0)) == -EINVAL);
  CHECK(assign(io(event, 0xa000, 0, kMatch)) == -EINVAL);
  CHECK(assign(io(event, ~std::uint64_t{0}, 4, 0)) == -EINVAL);  // wraps
  CHECK(assign(io(event, 0xa000, 4, 1 << 10)) == -EINVAL);
  kvm_ioeventfd none = io(event, 0xa000, 4, 0);
  none.fd = -1;
  CHECK(assign(none) == -EBADF);
  // What QEMU asks at its start: seven values at one port.
  for (std::uint64_t value = 0; value < 7; ++value) CHECK(assign(io(event, 0, 2, kPio | kMatch, value)) == 0);
  CHECK(assign(io(event, 0, 2, kPio | kMatch, 3)) == -EEXIST);
  for (std::uint64_t value = 0; value < 7; ++value) {
    CHECK(assign(io(event, 0, 2, kPio | kMatch | kDeassign, value)) == 0);
  }
}

TEST_CASE("a port write that matches an ioeventfd does not come out") {
  Rig rig;
  rig.load(ports_guest());
  const UniqueFd byte = make_event();
  const UniqueFd word = make_event();
  const UniqueFd other = make_event();
  REQUIRE(answer_to(rig.of_vm(), KVM_IOEVENTFD, io(byte, 0x21, 1, kPio | kMatch, 0x44)) == 0);
  REQUIRE(answer_to(rig.of_vm(), KVM_IOEVENTFD, io(word, 0x22, 0, kPio)) == 0);
  REQUIRE(answer_to(rig.of_vm(), KVM_IOEVENTFD, io(other, 0x24, 4, kPio | kMatch, 7)) == 0);
  const kvm_run& state = rig.run_to(KVM_EXIT_IO);
  CHECK(state.io.port == 0x24);  // its value is another
  CHECK(take(byte) == 1);
  CHECK(take(word) == 1);
  CHECK(take(other) == 0);
}

TEST_CASE("a memory-mapped write that matches an ioeventfd does not come out, and reads do") {
  Rig rig;
  rig.load_long_mode(mmio_guest());
  const UniqueFd event = make_event();
  for (const auto& [at, size] : {std::pair{0, 1U}, {2, 2U}, {4, 4U}, {8, 8U}}) {
    REQUIRE(answer_to(rig.of_vm(), KVM_IOEVENTFD, io(event, Rig::kHole + at, size, 0)) == 0);
  }
  REQUIRE(answer_to(rig.of_vm(), KVM_IOEVENTFD, io(event, Rig::kHole + 0x10, 1, 0)) == 0);
  const kvm_run& state = rig.run_to(KVM_EXIT_MMIO);
  CHECK(state.mmio.is_write == 0);
  CHECK(state.mmio.phys_addr == Rig::kHole + 0x10);
  CHECK(take(event) == 4);
}

TEST_CASE("what an irqfd may be") {
  Rig rig;
  const UniqueFd event = make_event();
  const auto assign = [&](std::uint32_t fd, std::uint32_t gsi, std::uint32_t flags, std::uint32_t resample = 0) {
    kvm_irqfd args{};
    args.fd = fd;
    args.gsi = gsi;
    args.flags = flags;
    args.resamplefd = resample;
    return answer(rig.of_vm(), KVM_IRQFD, &args);
  };
  const auto fd = static_cast<std::uint32_t>(event.get());
  CHECK(assign(fd, 5, 0) == -EINVAL);  // no controllers yet
  rig.vm.create_irqchip();
  CHECK(assign(fd, 5, 1 << 8) == -EINVAL);
  CHECK(assign(static_cast<std::uint32_t>(-1), 5, 0) == -EBADF);
  CHECK(assign(fd, 5, 0) == 0);
  CHECK(assign(fd, 5, 0) == -EBUSY);
  CHECK(assign(fd, 5, KVM_IRQFD_FLAG_DEASSIGN) == 0);
  CHECK(assign(fd, 5, KVM_IRQFD_FLAG_DEASSIGN) == 0);  // as often as one likes
  const UniqueFd resample = make_event();
  CHECK(assign(fd, 6, KVM_IRQFD_FLAG_RESAMPLE, static_cast<std::uint32_t>(resample.get())) == 0);
  CHECK(assign(fd, 6, KVM_IRQFD_FLAG_DEASSIGN) == 0);
}

TEST_CASE("an irqfd's event is an interrupt in the guest") {
  Rig rig(Rig::Chips::kInKernel);
  rig.load_long_mode(lapic_guest());
  store(rig.ram.data() + 0x2000, std::uint32_t{3});
  REQUIRE(rig.next_report() == 0x40);  // the local APIC is on
  struct {
    kvm_irq_routing header{.nr = 1, .flags = 0, .entries = {}};
    kvm_irq_routing_entry entry{};
  } routes;
  routes.entry.gsi = 30;
  routes.entry.type = KVM_IRQ_ROUTING_MSI;
  routes.entry.u.msi.address_lo = 0xfee00000;
  routes.entry.u.msi.data = 0x40;
  REQUIRE(answer(rig.of_vm(), KVM_SET_GSI_ROUTING, &routes) == 0);
  const UniqueFd event = make_event();
  kvm_irqfd args{};
  args.fd = static_cast<std::uint32_t>(event.get());
  args.gsi = 30;
  REQUIRE(answer(rig.of_vm(), KVM_IRQFD, &args) == 0);
  for (int i = 0; i < 3; ++i) {
    const std::uint64_t one = 1;
    REQUIRE(::write(event.get(), &one, sizeof one) == sizeof one);
    CHECK(rig.next_report() == 0x40);
  }
}

TEST_CASE("coalesced writes wait in the ring") {
  Rig rig;
  rig.load_long_mode(mmio_guest());
  const kvm_coalesced_mmio_zone zone{.addr = Rig::kHole, .size = 0x10, .pio = 0};
  REQUIRE(answer_to(rig.of_vm(), KVM_REGISTER_COALESCED_MMIO, zone) == 0);
  kvm_run& state = rig.run_to(KVM_EXIT_MMIO);
  CHECK(state.mmio.is_write == 0);  // the first read
  const auto page = static_cast<std::size_t>(rig.kvm.capability(KVM_CAP_COALESCED_MMIO)) * kPageSize;
  auto* ring = reinterpret_cast<std::byte*>(&state) + page;
  CHECK(load<std::uint32_t>(ring) == 0);      // first
  CHECK(load<std::uint32_t>(ring + 4) == 4);  // last
  const std::uint32_t sizes[] = {1, 2, 4, 8};
  for (unsigned i = 0; i < 4; ++i) {
    const std::byte* entry = ring + 8 + i * 24;
    CHECK(load<std::uint64_t>(entry) == Rig::kHole + (i == 0 ? 0 : 1U << i));
    CHECK(load<std::uint32_t>(entry + 8) == sizes[i]);
    std::uint64_t data = 0;
    std::memcpy(&data, entry + 16, sizes[i]);
    CHECK(data == (sizes[i] == 8 ? 0x8877665544332211 : 0x8877665544332211 & ((1ull << sizes[i] * 8) - 1)));
  }
  CHECK(answer_to(rig.of_vm(), KVM_UNREGISTER_COALESCED_MMIO, zone) == 0);
  CHECK(answer_to(rig.of_vm(), KVM_UNREGISTER_COALESCED_MMIO, zone) == 0);
  CHECK(answer_to(rig.of_vm(), KVM_REGISTER_COALESCED_MMIO,
                  kvm_coalesced_mmio_zone{.addr = 0x10, .size = 4, .pio = 2}) == -EINVAL);
}

TEST_CASE("coalesced port writes") {
  Rig rig;
  rig.load(ports_guest());
  REQUIRE(answer_to(rig.of_vm(), KVM_REGISTER_COALESCED_MMIO,
                    kvm_coalesced_mmio_zone{.addr = 0x21, .size = 3, .pio = 1}) == 0);
  kvm_run& state = rig.run_to(KVM_EXIT_IO);
  CHECK(state.io.port == 0x24);
  const auto* ring = reinterpret_cast<const std::byte*>(&state) + 2 * kPageSize;
  CHECK(load<std::uint32_t>(ring + 4) == 2);
  CHECK(load<std::uint64_t>(ring + 8) == 0x21);
  CHECK(load<std::uint32_t>(ring + 8 + 12) == 1);  // a port
}
