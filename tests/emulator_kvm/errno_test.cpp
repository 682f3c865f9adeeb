// What is refused, and with which errno: specs of the kernel's ABI, Linux arch/x86/kvm/svm/sev.c and
// virt/kvm/kvm_main.c.
#include <array>

#include "tests/emulator_kvm/fixture.hpp"

using namespace sevisor;
using namespace sevisor::test;

TEST_CASE_METHOD(HostFixture, "descriptors are the host's own, and none but the two devices opens") {
  CHECK(kvm_fd >= 1 << 20);
  CHECK(host->name() == "emulated");
  CHECK(host->open("/dev/null", O_RDWR) == -1);
  CHECK(errno == ENOENT);
  CHECK(call(3, KVM_GET_API_VERSION) == -EBADF);
  CHECK(host->close(kvm_fd) == 0);
  CHECK(call(kvm_fd, KVM_GET_API_VERSION) == -EBADF);
  CHECK(host->close(kvm_fd) == -1);
}

TEST_CASE_METHOD(HostFixture, "unknown numbers, by the kind of descriptor") {
  const int vcpu = call(vm, KVM_CREATE_VCPU, 0ul);
  REQUIRE(vcpu >= 0);
  constexpr unsigned long kNone = 0xaeff;
  CHECK(call(kvm_fd, kNone) == -EINVAL);
  CHECK(call(vm, kNone) == -ENOTTY);
  CHECK(call(vcpu, kNone) == -EINVAL);
  CHECK(call(sev_fd, kNone) == -EINVAL);
  // The sizes that C++ gives these structs with Debian 12's headers are numbers of their own.
  CHECK(call(kvm_fd, 0xc00cae05) == -EINVAL);
  CHECK(call(vm, 0x4010ae6a) == -ENOTTY);
  // One command number, two ioctls: VCPU_EVENTS and PIT2.
  CHECK(call(vm, KVM_GET_VCPU_EVENTS) == -ENOTTY);
}

TEST_CASE_METHOD(HostFixture, "/dev/kvm") {
  CHECK(call(kvm_fd, KVM_GET_API_VERSION) == 12);
  CHECK(call(kvm_fd, KVM_GET_VCPU_MMAP_SIZE) == 12288);
  for (const unsigned long type : {1ul, 4ul, 5ul, 64ul}) CHECK(call(kvm_fd, KVM_CREATE_VM, type) == -EINVAL);
  for (const unsigned long type : {2ul, 3ul}) CHECK(call(kvm_fd, KVM_CREATE_VM, type) >= 0);
  CHECK(call(kvm_fd, KVM_CHECK_EXTENSION, 235ul) == 0xd);
  CHECK(call(kvm_fd, KVM_CHECK_EXTENSION, static_cast<unsigned long>(KVM_CAP_NR_MEMSLOTS)) == 32764);
  CHECK(call(kvm_fd, KVM_CHECK_EXTENSION, static_cast<unsigned long>(KVM_CAP_NESTED_STATE)) == 0);
  CHECK(call(kvm_fd, KVM_CHECK_EXTENSION, 99999ul) == 0);
  std::uint64_t value = 99;
  kvm_device_attr attribute{.flags = 0, .group = 1, .attr = 0, .addr = reinterpret_cast<std::uintptr_t>(&value)};
  CHECK(call(kvm_fd, KVM_HAS_DEVICE_ATTR, &attribute) == 0);
  CHECK(call(kvm_fd, KVM_GET_DEVICE_ATTR, &attribute) == 0);
  CHECK(value == 0);  // no SEV feature is offered
  attribute.addr = 0x10;
  CHECK(call(kvm_fd, KVM_GET_DEVICE_ATTR, &attribute) == -EFAULT);
  attribute.attr = 3;  // 1 and 2 are SNP's
  CHECK(call(kvm_fd, KVM_HAS_DEVICE_ATTR, &attribute) == -ENXIO);
  attribute.group = 2;
  CHECK(call(kvm_fd, KVM_GET_DEVICE_ATTR, &attribute) == -ENXIO);
}

TEST_CASE_METHOD(HostFixture, "a bad address gives EFAULT, not a crash") {
  CHECK(call(vm, KVM_SET_USER_MEMORY_REGION, 0x10ul) == -EFAULT);
  CHECK(call(vm, KVM_IRQ_LINE) == -EFAULT);
  CHECK(call(kvm_fd, KVM_GET_SUPPORTED_CPUID, 0x10ul) == -EFAULT);
  CHECK(call(vm, KVM_MEMORY_ENCRYPT_OP, 0x10ul) == -EFAULT);
  CHECK(call(sev_fd, SEV_ISSUE_CMD) == -EFAULT);
  REQUIRE(sev(KVM_SEV_ES_INIT) == 0);
  CHECK(sev(KVM_SEV_LAUNCH_START, reinterpret_cast<void*>(0x20)) == -EFAULT);
}

TEST_CASE_METHOD(HostFixture, "interrupt controllers") {
  CHECK(call_with(vm, KVM_IRQ_LINE, kvm_irq_level{{4}, 1}) == -ENXIO);
  CHECK(call_with(vm, KVM_CREATE_PIT2, kvm_pit_config{}) == -ENOENT);
  std::vector<std::byte> chip(520);
  CHECK(call(vm, KVM_GET_IRQCHIP, chip.data()) == -ENXIO);
  CHECK(call_with(vm, KVM_SIGNAL_MSI, kvm_msi{}) == -EINVAL);
  CHECK(call(vm, KVM_CREATE_IRQCHIP) == 0);
  CHECK(call(vm, KVM_CREATE_IRQCHIP) == -EEXIST);
  CHECK(call_with(vm, KVM_CREATE_PIT2, kvm_pit_config{}) == 0);
  CHECK(call_with(vm, KVM_CREATE_PIT2, kvm_pit_config{}) == -EEXIST);
  CHECK(call_with(vm, KVM_IRQ_LINE, kvm_irq_level{{4}, 1}) == 0);
  CHECK(call(vm, KVM_GET_IRQCHIP, chip.data()) == 0);
  struct {
    kvm_irq_routing header;
    kvm_irq_routing_entry entry;
  } routing{};
  routing.header.nr = 1;
  routing.entry.gsi = 5000;
  routing.entry.type = KVM_IRQ_ROUTING_IRQCHIP;
  CHECK(call(vm, KVM_SET_GSI_ROUTING, &routing) == -EINVAL);
  routing.entry.gsi = 5;
  routing.entry.u.irqchip = {.irqchip = KVM_IRQCHIP_IOAPIC, .pin = 5};
  CHECK(call(vm, KVM_SET_GSI_ROUTING, &routing) == 0);
}

TEST_CASE_METHOD(HostFixture, "the irqchip comes before the vCPUs, and each vCPU once") {
  REQUIRE(call(vm, KVM_CREATE_VCPU, 0ul) >= 0);
  CHECK(call(vm, KVM_CREATE_VCPU, 0ul) == -EEXIST);
  CHECK(call(vm, KVM_CREATE_VCPU, 512ul) == -EINVAL);
  CHECK(call(vm, KVM_CREATE_IRQCHIP) == -EINVAL);
}

TEST_CASE_METHOD(HostFixture, "memory slots") {
  CHECK(slot(0, 0, 0x10000, ram.data()) == 0);
  CHECK(slot(1, 0x8000, 0x10000, ram.data()) == -EEXIST);
  CHECK(slot(1, 0x10000, 0x123, ram.data()) == -EINVAL);
  CHECK(slot(1, 0x10000, 0, ram.data()) == -EINVAL);
  CHECK(slot(1, 0x10000, 0x1000, ram.data(), KVM_MEM_READONLY) == 0);
  CHECK(slot(0, 0, 0, nullptr) == 0);
}

TEST_CASE_METHOD(HostFixture, "SEV initialisation") {
  CHECK(call(vm, KVM_MEMORY_ENCRYPT_OP) == 0);
  CHECK(sev(kvm::kSevInit2) == -EINVAL);
  CHECK(sev(KVM_SEV_ES_INIT) == 0);
  CHECK(sev(KVM_SEV_ES_INIT) == -EINVAL);
  CHECK(sev(KVM_SEV_INIT) == -EINVAL);

  vm = call(kvm_fd, KVM_CREATE_VM, 0ul);
  CHECK(sev(KVM_SEV_INIT) == 0);
  CHECK(sev(KVM_SEV_INIT) == -EINVAL);
  CHECK(sev(KVM_SEV_ES_INIT) == -EINVAL);
  CHECK(start(1) == 0);
  CHECK(sev(KVM_SEV_LAUNCH_UPDATE_VMSA) == -ENOTTY);

  vm = call(kvm_fd, KVM_CREATE_VM, 0ul);
  REQUIRE(call(vm, KVM_CREATE_VCPU, 0ul) >= 0);
  CHECK(sev(KVM_SEV_ES_INIT) == -EINVAL);
  CHECK(sev(KVM_SEV_INIT) == -EINVAL);
}

TEST_CASE_METHOD(HostFixture, "SEV commands on a VM without SEV") {
  for (const std::uint32_t id : {2u, 3u, 4u, 5u, 6u, 7u, 8u, 9u, 11u, 12u, 15u, 16u, 17u, 18u, 20u, 21u}) {
    INFO("command " << id);
    CHECK(sev(id, ram.data()) == -ENOTTY);
  }
  CHECK(sev(13, ram.data()) == -EINVAL);
  for (const std::uint32_t id : {10u, 14u, 19u, 23u, 101u}) CHECK(sev(id, ram.data()) == -EINVAL);
  for (const std::uint32_t id : {100u, 102u})
    CHECK(sev(id, ram.data()) == -ENOTTY);  // SNP guests' LAUNCH_START, FINISH
  CHECK(call_with(vm, KVM_MEMORY_ENCRYPT_REG_REGION, kvm_enc_region{}) == -ENOTTY);
  // The argument is copied first (kvm_arch_vm_ioctl()).
  CHECK(call(vm, KVM_MEMORY_ENCRYPT_REG_REGION, 0x1000ul) == -EFAULT);
  CHECK(call(vm, KVM_MEMORY_ENCRYPT_UNREG_REGION, 0x1000ul) == -EFAULT);
}

TEST_CASE_METHOD(HostFixture, "the launch, out of order") {
  REQUIRE(sev(KVM_SEV_ES_INIT) == 0);
  // Before LAUNCH_START the stored descriptor is number 0, which is no /dev/sev.
  CHECK(update(ram.data(), 4096) == -EBADF);
  CHECK(sev(KVM_SEV_LAUNCH_FINISH) == -EBADF);
  const int good = sev_fd;
  sev_fd = kvm_fd;
  CHECK(start() == -EBADF);
  sev_fd = good;
  CHECK(start(5 | 1 << 8) == -EIO);
  CHECK(firmware_error == 7);
  CHECK(start() == 0);
  // A second context, which cannot have the guest's ASID and is gone again (sev_launch_start()).
  CHECK(start() == -EIO);
  CHECK(firmware_error == 12);
  CHECK(update(ram.data(), 0) == -EINVAL);
  CHECK(update(ram.data(), 8) == -EIO);
  CHECK(firmware_error == 4);
  CHECK(update(ram.data() + 4, 16) == -EIO);
  CHECK(firmware_error == 9);
  CHECK(update(reinterpret_cast<void*>(0x1000), 4096) == -ENOMEM);
  CHECK(update(ram.data(), 4096) == 0);
  CHECK(firmware_error == 0);
  CHECK(sev(KVM_SEV_LAUNCH_FINISH) == -EIO);
  CHECK(firmware_error == 2);

  kvm_sev_launch_measure measure{};
  CHECK(sev(KVM_SEV_LAUNCH_MEASURE, &measure) == -EIO);
  CHECK(firmware_error == 4);
  CHECK(measure.len == 48);
  // Without an address no length reaches the firmware; a failure writes nothing back (sev_launch_measure()).
  for (const std::uint32_t length : {48U, 16U * 1024 + 1}) {
    measure.len = length;
    CHECK(sev(KVM_SEV_LAUNCH_MEASURE, &measure) == -EIO);
    CHECK(firmware_error == 4);
    CHECK(measure.len == length);
  }
  std::array<std::byte, 256> blob{};
  measure.uaddr = reinterpret_cast<std::uintptr_t>(blob.data());
  measure.len = 16 * 1024 + 1;
  CHECK(sev(KVM_SEV_LAUNCH_MEASURE, &measure) == -EINVAL);
  measure.len = 16;
  CHECK(sev(KVM_SEV_LAUNCH_MEASURE, &measure) == -EIO);
  CHECK(firmware_error == 4);
  CHECK(measure.len == 16);
  measure.len = 256;
  CHECK(sev(KVM_SEV_LAUNCH_MEASURE, &measure) == 0);
  CHECK(measure.len == 48);
  kvm_sev_guest_status status{};
  CHECK(sev(KVM_SEV_GUEST_STATUS, &status) == 0);
  CHECK(status.policy == 5);
  CHECK(status.state == 2);
  CHECK(update(ram.data(), 4096) == -EIO);
  CHECK(sev(KVM_SEV_LAUNCH_FINISH) == 0);
  CHECK(host->close(sev_fd) == 0);
  CHECK(sev(KVM_SEV_GUEST_STATUS, &status) == -EBADF);
}

TEST_CASE_METHOD(HostFixture, "the error field is the caller's until the firmware is reached") {
  REQUIRE(sev(KVM_SEV_ES_INIT) == 0);
  kvm_sev_cmd command{};
  command.id = KVM_SEV_LAUNCH_FINISH;
  command.error = 0x1234;
  CHECK(call(vm, KVM_MEMORY_ENCRYPT_OP, &command) == -EBADF);
  CHECK(command.error == 0x1234);
}

TEST_CASE_METHOD(HostFixture, "encrypted regions") {
  REQUIRE(sev(KVM_SEV_ES_INIT) == 0);
  const auto at = reinterpret_cast<std::uintptr_t>(ram.data());
  const auto add = [&](std::uint64_t addr, std::uint64_t size) {
    return call_with(vm, KVM_MEMORY_ENCRYPT_REG_REGION, kvm_enc_region{addr, size});
  };
  const auto remove = [&](std::uint64_t addr, std::uint64_t size) {
    return call_with(vm, KVM_MEMORY_ENCRYPT_UNREG_REGION, kvm_enc_region{addr, size});
  };
  CHECK(add(at, 0) == -EINVAL);
  CHECK(add(~0ull - 4, 4096) == -EINVAL);
  CHECK(add(0x1000, 4096) == -ENOMEM);
  CHECK(add(at, 8192) == 0);
  CHECK(add(at, 8192) == 0);  // counted twice
  CHECK(remove(at, 4096) == -EINVAL);
  CHECK(remove(at, 8192) == 0);
  CHECK(remove(at, 8192) == 0);
  CHECK(remove(at, 8192) == -EINVAL);
}

TEST_CASE_METHOD(HostFixture, "LAUNCH_UPDATE_VMSA comes as often as it is asked for, and not with breakpoints") {
  REQUIRE(sev(KVM_SEV_ES_INIT) == 0);
  REQUIRE(start() == 0);
  CHECK(sev(KVM_SEV_LAUNCH_UPDATE_VMSA) == 0);  // of no vCPU
  const int vcpu = call(vm, KVM_CREATE_VCPU, 0ul);
  kvm_debugregs debug{};
  debug.dr7 = 0x401;
  CHECK(call(vcpu, KVM_SET_DEBUGREGS, &debug) == 0);
  CHECK(sev(KVM_SEV_LAUNCH_UPDATE_VMSA) == -EINVAL);
  debug.dr7 = 0;
  CHECK(call(vcpu, KVM_SET_DEBUGREGS, &debug) == 0);
  CHECK(sev(KVM_SEV_LAUNCH_UPDATE_VMSA) == 0);
  CHECK(sev(KVM_SEV_LAUNCH_UPDATE_VMSA) == 0);
}

TEST_CASE_METHOD(HostFixture, "ASIDs run out as EBUSY, and come back when VMs are closed") {
  // CPUID 0x8000001F: those below EDX are for SEV-ES, the others, up to ECX, for SEV alone.
  struct Kind {
    std::uint32_t init;
    int asids;
    std::uint32_t policy;
  };
  for (const Kind kind : {Kind{KVM_SEV_ES_INIT, 409, 5}, Kind{KVM_SEV_INIT, 100, 1}}) {
    std::vector<int> vms;
    for (int i = 0; i < kind.asids; ++i) {
      vm = call(kvm_fd, KVM_CREATE_VM, 0ul);
      REQUIRE(sev(kind.init) == 0);
      vms.push_back(vm);
    }
    vm = call(kvm_fd, KVM_CREATE_VM, 0ul);
    CHECK(sev(kind.init) == -EBUSY);
    CHECK(host->close(vms[17]) == 0);
    CHECK(sev(kind.init) == 0);
    CHECK(start(kind.policy) == 0);
  }
}

TEST_CASE_METHOD(HostFixture, "a guest whose policy asks for no SEV-ES gets no ASID of those that do") {
  REQUIRE(sev(KVM_SEV_ES_INIT) == 0);
  CHECK(start(1) == -EIO);
  CHECK(firmware_error == 13);  // INVALID_ASID (SEV API, ACTIVATE)
}

TEST_CASE_METHOD(HostFixture, "/dev/sev") {
  const auto issue = [&](int fd, std::uint32_t id, void* data) {
    sev_issue_cmd command{};
    command.cmd = id;
    command.data = reinterpret_cast<std::uintptr_t>(data);
    const int result = call(fd, SEV_ISSUE_CMD, &command);
    firmware_error = command.error;
    return result;
  };
  sev_user_data_status status{};
  CHECK(issue(sev_fd, SEV_PLATFORM_STATUS, &status) == 0);
  CHECK(status.api_major == 1);
  CHECK(status.state == 1);
  CHECK(status.flags == 0x100);
  CHECK(issue(sev_fd, 99, nullptr) == -EINVAL);
  const int reader = host->open("/dev/sev", O_RDONLY);
  CHECK(issue(reader, SEV_PLATFORM_STATUS, &status) == 0);
  CHECK(issue(reader, SEV_FACTORY_RESET, nullptr) == -EPERM);
  REQUIRE(sev(KVM_SEV_ES_INIT) == 0);
  REQUIRE(start() == 0);
  CHECK(issue(sev_fd, SEV_PLATFORM_STATUS, &status) == 0);
  CHECK(status.state == 2);
  CHECK(status.guest_count == 1);
  CHECK(issue(sev_fd, SEV_FACTORY_RESET, nullptr) == -EBUSY);
  CHECK(host->close(vm) == 0);
  CHECK(issue(sev_fd, SEV_FACTORY_RESET, nullptr) == 0);
  CHECK(issue(sev_fd, SEV_PLATFORM_STATUS, &status) == 0);
  CHECK(status.state == 0);
}
