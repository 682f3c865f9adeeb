// KVM_IRQFD and KVM_IOEVENTFD. The errnos were read from a live Linux 6.18 kernel, as was which requests collide.
#include <chrono>
#include <string>
#include <sys/eventfd.h>
#include <thread>
#include <unistd.h>

#include "base/unique_fd.hpp"
#include "ghcb/ioio.hpp"
#include "tests/emulator_kvm/run_fixture.hpp"

using namespace sevisor;
using namespace sevisor::test;
using emulator::CpuExit;
using emulator::RunControls;

namespace {

struct Event {
  UniqueFd file{::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)};
  [[nodiscard]] int fd() const { return file.get(); }
  void signal() const { REQUIRE(::eventfd_write(fd(), 1) == 0); }
  // How often it was signalled since the last call.
  [[nodiscard]] std::uint64_t count() const {
    eventfd_t value = 0;
    return ::eventfd_read(fd(), &value) == 0 ? value : 0;
  }
};

kvm_irqfd irqfd(const Event& event, std::uint32_t gsi, std::uint32_t flags = 0, int resample = 0) {
  kvm_irqfd request{};
  request.fd = static_cast<std::uint32_t>(event.fd());
  request.gsi = gsi;
  request.flags = flags;
  request.resamplefd = static_cast<std::uint32_t>(resample);
  return request;
}

kvm_ioeventfd ioeventfd(int fd, std::uint64_t address, std::uint32_t length, std::uint32_t flags = 0,
                        std::uint64_t value = 0) {
  kvm_ioeventfd request{};
  request.datamatch = value;
  request.addr = address;
  request.len = length;
  request.fd = fd;
  request.flags = flags;
  return request;
}

constexpr std::uint32_t kMatch = KVM_IOEVENTFD_FLAG_DATAMATCH;
constexpr std::uint32_t kPort = KVM_IOEVENTFD_FLAG_PIO;
constexpr std::uint32_t kRemove = KVM_IOEVENTFD_FLAG_DEASSIGN;
constexpr std::uint32_t kResample = KVM_IRQFD_FLAG_RESAMPLE;
constexpr std::uint32_t kUnassign = KVM_IRQFD_FLAG_DEASSIGN;

struct Eventfds : HostFixture {
  Event one;
  Event two;
  UniqueFd other{::open("/dev/zero", O_RDWR | O_CLOEXEC)};

  int irq(const kvm_irqfd& request) { return call_with(vm, KVM_IRQFD, request); }
  int io(const kvm_ioeventfd& request) { return call_with(vm, KVM_IOEVENTFD, request); }
};

struct RunningEventfds : RunFixture {
  Event one;
  Event two;
  explicit RunningEventfds(unsigned count = 1) : RunFixture(count) {}

  // The interrupt requests of vector `vector` that vCPU 0's local APIC has.
  bool requested(unsigned vector) {
    kvm_lapic_state lapic{};
    REQUIRE(call(vcpus[0], KVM_GET_LAPIC, &lapic) == 0);
    return (load<std::uint32_t>(lapic.regs + 0x200 + vector / 32 * 16) >> vector % 32 & 1) != 0;
  }
  // The vCPU's local APIC on; pin 4 of the IOAPIC is `low`, for it.
  void enable(std::uint32_t low, unsigned vcpu = 0) {
    kvm_lapic_state lapic{};
    REQUIRE(call(vcpus[vcpu], KVM_GET_LAPIC, &lapic) == 0);
    store(lapic.regs + 0xf0, std::uint32_t{0x1ff});
    store(lapic.regs + 0x350, std::uint32_t{0x10000});  // LINT0 masked
    REQUIRE(call(vcpus[vcpu], KVM_SET_LAPIC, &lapic) == 0);
    kvm_irqchip chip{};
    chip.chip_id = KVM_IRQCHIP_IOAPIC;
    REQUIRE(call(vm, KVM_GET_IRQCHIP, &chip) == 0);
    chip.chip.ioapic.redirtbl[4].bits = std::uint64_t{vcpu} << 56 | low;
    REQUIRE(call(vm, KVM_SET_IRQCHIP, &chip) == 0);
  }
};

struct TwoVcpus : RunningEventfds {
  TwoVcpus() : RunningEventfds(2) {}
};

}  // namespace

TEST_CASE_METHOD(Eventfds, "KVM_IRQFD without interrupt controllers") {
  CHECK(irq(irqfd(one, 3)) == -EINVAL);
  CHECK(irq(irqfd(one, 3, kUnassign)) == 0);
  CHECK(call(vm, KVM_IRQFD) == -EFAULT);
}

TEST_CASE_METHOD(Eventfds, "KVM_IRQFD's errors") {
  REQUIRE(call(vm, KVM_CREATE_IRQCHIP) == 0);
  kvm_irqfd bad = irqfd(one, 3);
  bad.fd = ~std::uint32_t{0};
  CHECK(irq(bad) == -EBADF);
  bad.fd = static_cast<std::uint32_t>(other.get());
  CHECK(irq(bad) == -EINVAL);
  bad.flags = kUnassign;
  CHECK(irq(bad) == -EINVAL);
  CHECK(irq(irqfd(one, 3, 4)) == -EINVAL);
  CHECK(irq(irqfd(one, 3)) == 0);
  CHECK(irq(irqfd(one, 3)) == -EBUSY);
  CHECK(irq(irqfd(one, 4)) == -EBUSY);
  CHECK(irq(irqfd(two, 3)) == 0);
  CHECK(irq(irqfd(two, 9, kUnassign)) == 0);  // there is none
  CHECK(irq(irqfd(two, 3, kUnassign)) == 0);
  CHECK(irq(irqfd(one, 3, kUnassign | kResample, -1)) == 0);
  CHECK(irq(irqfd(one, 100000)) == 0);
  CHECK(irq(irqfd(one, 100000, kUnassign)) == 0);
  CHECK(irq(irqfd(one, 3, kResample, -1)) == -EBADF);
  CHECK(irq(irqfd(one, 3, kResample, other.get())) == -EINVAL);
  CHECK(irq(irqfd(one, 3, kResample, two.fd())) == 0);
  // The eventfd counts, not the descriptor.
  const UniqueFd again(::dup(one.fd()));
  kvm_irqfd same = irqfd(one, 5);
  same.fd = static_cast<std::uint32_t>(again.get());
  CHECK(irq(same) == -EBUSY);
  same.gsi = 3;
  same.flags = kUnassign;
  CHECK(irq(same) == 0);
  CHECK(irq(irqfd(one, 5)) == 0);
}

TEST_CASE_METHOD(Eventfds, "KVM_IOEVENTFD's errors") {
  for (const std::uint32_t length : {0, 1, 2, 4, 8}) CHECK(io(ioeventfd(one.fd(), 0x1000 + 16 * length, length)) == 0);
  for (const std::uint32_t length : {3, 5, 6, 7, 9, 16}) CHECK(io(ioeventfd(one.fd(), 0x2000, length)) == -EINVAL);
  CHECK(io(ioeventfd(one.fd(), 0x3000, 0, kMatch)) == -EINVAL);
  CHECK(io(ioeventfd(one.fd(), ~std::uint64_t{0}, 4)) == -EINVAL);
  CHECK(io(ioeventfd(one.fd(), ~std::uint64_t{3}, 4)) == -EINVAL);
  CHECK(io(ioeventfd(one.fd(), 0x4000, 4, 0x20)) == -EINVAL);
  CHECK(io(ioeventfd(-1, 0x5000, 4)) == -EBADF);
  CHECK(io(ioeventfd(other.get(), 0x5000, 4)) == -EINVAL);
  CHECK(io(ioeventfd(-1, 0x5000, 4, kRemove)) == -EBADF);
  CHECK(io(ioeventfd(other.get(), 0x5000, 4, kRemove)) == -EINVAL);
  CHECK(io(ioeventfd(one.fd(), 0x10000, 1, kPort)) == 0);
  CHECK(call(vm, KVM_IOEVENTFD) == -EFAULT);
}

TEST_CASE_METHOD(Eventfds, "KVM_IOEVENTFD's collisions, and which one is removed") {
  CHECK(io(ioeventfd(one.fd(), 0x1400, 4)) == 0);
  CHECK(io(ioeventfd(two.fd(), 0x1400, 4)) == -EEXIST);
  CHECK(io(ioeventfd(two.fd(), 0x1400, 4, kMatch, 7)) == -EEXIST);
  CHECK(io(ioeventfd(two.fd(), 0x1400, 2)) == 0);
  CHECK(io(ioeventfd(two.fd(), 0x1400, 0)) == -EEXIST);
  CHECK(io(ioeventfd(two.fd(), 0x1400, 4, kPort)) == 0);
  CHECK(io(ioeventfd(one.fd(), 0xc000, 4, kMatch, 1)) == 0);
  CHECK(io(ioeventfd(one.fd(), 0xc000, 4, kMatch, 2)) == 0);
  CHECK(io(ioeventfd(two.fd(), 0xc000, 4, kMatch, 1)) == -EEXIST);
  CHECK(io(ioeventfd(two.fd(), 0xc000, 4)) == -EEXIST);
  CHECK(io(ioeventfd(one.fd(), 0xc000, 4, kMatch | kRemove, 3)) == -ENOENT);
  CHECK(io(ioeventfd(one.fd(), 0xc000, 4, kRemove)) == -ENOENT);
  CHECK(io(ioeventfd(two.fd(), 0xc000, 4, kMatch | kRemove, 1)) == -ENOENT);
  CHECK(io(ioeventfd(one.fd(), 0xc000, 3, kRemove)) == -ENOENT);
  CHECK(io(ioeventfd(one.fd(), 0xc000, 4, kMatch | kRemove, 1)) == 0);
  CHECK(io(ioeventfd(two.fd(), 0xc000, 4, kMatch, 1)) == 0);
}

// QEMU 7.2 accel/kvm/kvm-all.c: it uses eventfds only if all of these succeed.
TEST_CASE_METHOD(Eventfds, "QEMU's probe of KVM_IOEVENTFD") {
  for (std::uint64_t value = 0; value < 7; ++value) {
    CHECK(io(ioeventfd(one.fd(), 0, 2, kMatch | kPort, value)) == 0);
  }
  for (std::uint64_t value = 0; value < 7; ++value) {
    CHECK(io(ioeventfd(one.fd(), 0, 2, kMatch | kPort | kRemove, value)) == 0);
  }
}

TEST_CASE_METHOD(RunningEventfds, "writes that an ioeventfd takes never reach user space") {
  REQUIRE(call_with(vm, KVM_IOEVENTFD, ioeventfd(one.fd(), 0xd0000000, 4)) == 0);
  REQUIRE(call_with(vm, KVM_IOEVENTFD, ioeventfd(two.fd(), 0xd0000010, 2, kMatch, 0x1234)) == 0);
  int step = 0;
  set_guest_code(0, [&](Guest& guest, const RunControls&) {
    switch (step++) {
      case 0:
        return write_mmio(guest, 0xd0000000, std::uint32_t{5});
      case 1:
        return write_mmio(guest, 0xd0000010, std::uint16_t{0x1234});
      case 2:  // another size, another value, another address
        return write_mmio(guest, 0xd0000000, std::uint16_t{5});
      case 3:
        return write_mmio(guest, 0xd0000010, std::uint16_t{0x1235});
      case 4:
        return write_mmio(guest, 0xd0000002, std::uint32_t{5});
      case 5:
        return ask(guest, ghcb::kExitMmioRead, 0xd0000000, 4);
      default:
        return exit_with(ghcb::kExitShutdown);
    }
  });
  CHECK(run() == 0);
  REQUIRE(state().exit_reason == KVM_EXIT_MMIO);
  CHECK(state().mmio.len == 2);
  CHECK(state().mmio.phys_addr == 0xd0000000);
  CHECK(one.count() == 1);
  CHECK(two.count() == 1);
  CHECK(run() == 0);
  CHECK(state().mmio.phys_addr == 0xd0000010);
  CHECK(run() == 0);
  CHECK(state().mmio.phys_addr == 0xd0000002);
  CHECK(run() == 0);
  CHECK(state().mmio.is_write == 0);
  CHECK(run() == 0);
  CHECK(state().exit_reason == KVM_EXIT_SHUTDOWN);
  CHECK(one.count() == 0);
  CHECK(two.count() == 0);
}

TEST_CASE_METHOD(RunningEventfds, "port writes to ioeventfds, alone and in strings") {
  REQUIRE(call_with(vm, KVM_IOEVENTFD, ioeventfd(one.fd(), 0x510, 2, kMatch | kPort, 3)) == 0);
  REQUIRE(call_with(vm, KVM_IOEVENTFD, ioeventfd(two.fd(), 0x600, 0, kPort)) == 0);
  int step = 0;
  set_guest_code(0, [&](Guest& guest, const RunControls&) {
    switch (step++) {
      case 0:
        return ask(guest, ghcb::kExitIoio, encode(ghcb::IoAccess{.port = 0x510, .size = 2}), 0, 3);
      case 1:
        return ask(guest, ghcb::kExitIoio, encode(ghcb::IoAccess{.port = 0x600, .size = 4}), 0, 99);
      case 2: {  // three elements: the first is taken, so the others are lost (Linux emulator_pio_in_out())
        const std::uint16_t words[] = {3, 4, 5};
        const CpuExit exit = ask(guest, ghcb::kExitIoio,
                                 encode(ghcb::IoAccess{.port = 0x510, .string = true, .rep = true, .size = 2}), 3);
        std::memcpy(page_of(guest).shared_buffer, words, sizeof words);
        return exit;
      }
      case 3:
        return ask(guest, ghcb::kExitIoio, encode(ghcb::IoAccess{.port = 0x510, .size = 2}), 0, 4);
      default:
        return exit_with(ghcb::kExitShutdown);
    }
  });
  CHECK(run() == 0);
  REQUIRE(state().exit_reason == KVM_EXIT_IO);
  CHECK(step == 4);
  CHECK(state().io.port == 0x510);
  CHECK(load<std::uint16_t>(data()) == 4);
  CHECK(one.count() == 2);
  CHECK(two.count() == 1);
}

TEST_CASE_METHOD(RunningEventfds, "an irqfd interrupts by its GSI's route, for each signal once") {
  enable(0x31);
  two.signal();  // before it is assigned
  REQUIRE(call_with(vm, KVM_IRQFD, irqfd(two, 4)) == 0);
  CHECK(requested(0x31));
  CHECK(two.count() == 0);

  enable(0x32);
  REQUIRE(call_with(vm, KVM_IRQFD, irqfd(two, 4, kUnassign)) == 0);
  two.signal();
  CHECK_FALSE(requested(0x32));
  CHECK(two.count() == 1);

  REQUIRE(call_with(vm, KVM_IRQFD, irqfd(one, 4)) == 0);
  CHECK_FALSE(requested(0x32));
  one.signal();
  CHECK(requested(0x32));
  // User space's own line: an edge that has passed.
  CHECK(one.count() == 0);
}

TEST_CASE_METHOD(RunningEventfds, "an irqfd outlives the descriptor that it was made with") {
  enable(0x31);
  const UniqueFd kept(::dup(one.fd()));
  REQUIRE(call_with(vm, KVM_IRQFD, irqfd(one, 4)) == 0);
  one.file.reset();
  REQUIRE(::eventfd_write(kept.get(), 1) == 0);
  CHECK(requested(0x31));
}

TEST_CASE_METHOD(RunningEventfds, "a thread that writes an irqfd wakes a halted guest") {
  enable(0x31);
  REQUIRE(call_with(vm, KVM_IRQFD, irqfd(one, 4)) == 0);
  int step = 0;
  std::uint64_t injected = 0;
  set_guest_code(0, [&](Guest& guest, const RunControls& controls) {
    guest.spend(1);
    guest.interrupts = true;
    if (step++ == 0) return exit_with(ghcb::kExitHlt);
    injected = controls.event_injection;
    return exit_with(ghcb::kExitShutdown);
  });
  std::thread writer([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    one.signal();
  });
  CHECK(run() == 0);
  writer.join();
  CHECK(state().exit_reason == KVM_EXIT_SHUTDOWN);
  CHECK(injected == 0x80000031);
}

TEST_CASE_METHOD(RunningEventfds, "an eventfd that a guest's write signals interrupts before its next instruction") {
  enable(0x31);
  REQUIRE(call_with(vm, KVM_IRQFD, irqfd(one, 4)) == 0);
  REQUIRE(call_with(vm, KVM_IOEVENTFD, ioeventfd(one.fd(), 0xd0000000, 4)) == 0);
  int step = 0;
  std::uint64_t injected = 0;
  set_guest_code(0, [&](Guest& guest, const RunControls& controls) {
    guest.spend(1);
    guest.interrupts = true;
    if (step++ == 0) return write_mmio(guest, 0xd0000000, std::uint32_t{1});
    injected = controls.event_injection;
    return exit_with(ghcb::kExitShutdown);
  });
  for (int i = 0; i < 50 && (i == 0 || injected == 0x80000031); ++i) {
    step = 0;
    injected = 0;
    enable(0x31);
    kvm_lapic_state lapic{};
    REQUIRE(call(vcpus[0], KVM_GET_LAPIC, &lapic) == 0);
    std::memset(lapic.regs + 0x100, 0, 0x180);  // nothing in service or requested
    REQUIRE(call(vcpus[0], KVM_SET_LAPIC, &lapic) == 0);
    CHECK(run() == 0);
    CHECK(injected == 0x80000031);
  }
}

TEST_CASE_METHOD(TwoVcpus, "what the last instruction of a turn signals interrupts before the next turn") {
  enable(0x31, 1);
  REQUIRE(call_with(vcpus[1], KVM_SET_MP_STATE, kvm_mp_state{KVM_MP_STATE_RUNNABLE}) == 0);
  REQUIRE(call_with(vm, KVM_IRQFD, irqfd(one, 4)) == 0);
  REQUIRE(call_with(vm, KVM_IOEVENTFD, ioeventfd(one.fd(), 0xd0000000, 4)) == 0);
  std::string order;
  int first = 0;
  int second = 0;
  set_guest_code(0, [&](Guest& guest, const RunControls&) {
    guest.spend(1000);  // a whole turn
    if (first++ == 0) return exit_with(ghcb::kExitIntr);
    if (first == 2) return write_mmio(guest, 0xd0000000, std::uint32_t{1});
    order += '0';
    return exit_with(ghcb::kExitShutdown);
  });
  set_guest_code(1, [&](Guest& guest, const RunControls&) {
    guest.spend(1);
    guest.interrupts = true;
    if (second++ == 0) return exit_with(ghcb::kExitHlt);
    order += '1';
    return exit_with(ghcb::kExitShutdown);
  });
  std::thread other([&] { CHECK(run(1) == 0); });
  CHECK(run(0) == 0);
  other.join();
  CHECK(order == "10");
}

TEST_CASE_METHOD(RunningEventfds, "a resampling irqfd holds its line until the guest's EOI, and then says so") {
  enable(0x8031);  // level-triggered
  Event resample;
  REQUIRE(call_with(vm, KVM_IRQFD, irqfd(one, 4, kResample, resample.fd())) == 0);
  std::vector<std::uint64_t> injected;
  int step = 0;
  set_guest_code(0, [&](Guest& guest, const RunControls& controls) {
    guest.spend(1);
    guest.interrupts = true;
    if (controls.event_injection != 0) injected.push_back(controls.event_injection);
    switch (step++) {
      case 0:
        return exit_with(ghcb::kExitVintr);
      case 1:  // in the handler
        return ask(guest, ghcb::kExitIoio, encode(ghcb::IoAccess{.port = 0x80}), 0);
      case 2:
        return write_mmio(guest, 0xfee000b0, std::uint32_t{0});
      case 3:
        return ask(guest, ghcb::kExitIoio, encode(ghcb::IoAccess{.port = 0x80}), 0);
      default:
        return exit_with(ghcb::kExitShutdown);
    }
  });
  one.signal();
  CHECK(run() == 0);
  CHECK(injected == std::vector<std::uint64_t>{0x80000031});
  CHECK(resample.count() == 0);
  kvm_irqchip chip{};
  chip.chip_id = KVM_IRQCHIP_IOAPIC;
  REQUIRE(call(vm, KVM_GET_IRQCHIP, &chip) == 0);
  CHECK(chip.chip.ioapic.irr == 0x10);
  CHECK(chip.chip.ioapic.redirtbl[4].fields.remote_irr == 1);
  CHECK(run() == 0);
  CHECK(resample.count() == 1);
  REQUIRE(call(vm, KVM_GET_IRQCHIP, &chip) == 0);
  CHECK(chip.chip.ioapic.irr == 0);
  CHECK(chip.chip.ioapic.redirtbl[4].fields.remote_irr == 0);
  one.signal();  // the device still wants attention
  CHECK(run() == 0);
  CHECK(injected.size() == 2);
  // When it goes, so does its hold on the line.
  REQUIRE(call(vm, KVM_GET_IRQCHIP, &chip) == 0);
  CHECK(chip.chip.ioapic.irr == 0x10);
  REQUIRE(call_with(vm, KVM_IRQFD, irqfd(one, 4, kUnassign)) == 0);
  REQUIRE(call(vm, KVM_GET_IRQCHIP, &chip) == 0);
  CHECK(chip.chip.ioapic.irr == 0);
}

TEST_CASE_METHOD(RunningEventfds, "a resampling irqfd through the PIC") {
  Event resample;
  REQUIRE(call_with(vm, KVM_IRQFD, irqfd(one, 4, kResample, resample.fd())) == 0);
  int step = 0;
  std::vector<std::uint64_t> injected;
  set_guest_code(0, [&](Guest& guest, const RunControls& controls) {
    guest.spend(1);
    guest.interrupts = true;
    if (controls.event_injection != 0) injected.push_back(controls.event_injection);
    const auto out = [&](std::uint16_t port, std::uint64_t value) {
      return ask(guest, ghcb::kExitIoio, encode(ghcb::IoAccess{.port = port}), 0, value);
    };
    constexpr std::pair<std::uint16_t, std::uint8_t> kInit[] = {{0x20, 0x11}, {0x21, 0x20}, {0x21, 4}, {0x21, 1}};
    if (step < 4) {
      const auto& [port, value] = kInit[step++];
      return out(port, value);
    }
    switch (step++) {
      case 4:
        return out(0x80, 0);
      case 5:
        return out(0x20, 0x20);  // EOI
      default:
        return exit_with(ghcb::kExitShutdown);
    }
  });
  CHECK(run() == 0);
  REQUIRE(state().exit_reason == KVM_EXIT_IO);
  one.signal();
  CHECK(run() == 0);
  CHECK(injected == std::vector<std::uint64_t>{0x80000024});
  CHECK(resample.count() == 1);
}
