// The emulated host as the KVM of older kernels. Right answers: Linux 6.1, 6.12 and 7.2, arch/x86/kvm/svm/sev.c and
// x86.c, at the functions that emulator/kvm/personality.hpp names.
#include "emulator/kvm/personality.hpp"

#include <array>

#include "tests/emulator_kvm/fixture.hpp"

using namespace sevisor;
using namespace sevisor::test;

namespace {

struct Kernel : HostFixture {
  explicit Kernel(std::string_view name) {
    host = emulator::make_emulated_host({.slice = 1000, .personality = emulator::find_personality(name)});
    kvm_fd = host->open("/dev/kvm", O_RDWR);
    sev_fd = host->open("/dev/sev", O_RDWR);
    vm = call(kvm_fd, KVM_CREATE_VM, 0ul);
  }
  int has(unsigned long capability) { return call(kvm_fd, KVM_CHECK_EXTENSION, capability); }
  std::uint32_t features_1_ecx() {
    struct {
      kvm_cpuid2 header;
      kvm_cpuid_entry2 entries[64];
    } table{};
    table.header.nent = 64;
    REQUIRE(call(kvm_fd, KVM_GET_SUPPORTED_CPUID, &table) == 0);
    for (const kvm_cpuid_entry2& entry : table.entries) {
      if (entry.function == 1) return entry.ecx;
    }
    return 0;
  }
  int attribute(std::uint64_t number) {
    std::uint64_t value = ~std::uint64_t{0};
    kvm_device_attr attribute{};
    attribute.group = kvm::kDeviceAttrGroupSev;
    attribute.attr = number;
    attribute.addr = reinterpret_cast<std::uintptr_t>(&value);
    const int result = call(kvm_fd, KVM_GET_DEVICE_ATTR, &attribute);
    if (result == 0 && number != 0) CHECK(value == 0);
    return result;
  }
};

constexpr unsigned kHypervisor = 31;
constexpr unsigned kTscDeadline = 24;

}  // namespace

TEST_CASE("the newest kernel is the default, and names are exact") {
  REQUIRE(emulator::personalities().size() == 3);
  CHECK(&emulator::newest_personality() == &emulator::personalities().back());
  CHECK(emulator::EmulatedHostOptions{}.personality == &emulator::newest_personality());
  for (const char* name : {"", "6", "6.1.0", "7", "newest"}) CHECK(emulator::find_personality(name) == nullptr);
}

TEST_CASE("Linux 6.1 has no VM types and no KVM_SEV_INIT2") {
  Kernel kernel("6.1");
  CHECK(kernel.has(kvm::kCapVmTypes) == 0);
  CHECK(kernel.has(kvm::kCapUserMemory2) == 0);
  for (const unsigned long type : {kvm::kVmTypeSev, kvm::kVmTypeSevEs}) {
    CHECK(kernel.call(kernel.kvm_fd, KVM_CREATE_VM, type) == -EINVAL);
  }
  kvm::SevInit init{};
  CHECK(kernel.sev(kvm::kSevInit2, &init) == -EINVAL);
  CHECK(kernel.attribute(0) == -ENXIO);
  kvm::MemoryRegion2 region{};
  CHECK(kernel.call(kernel.vm, kvm::kSetUserMemoryRegion2, &region) == -ENOTTY);
  CHECK(kernel.sev(KVM_SEV_ES_INIT) == 0);
  CHECK(kernel.sev(KVM_SEV_ES_INIT) == -EBUSY);
  REQUIRE(kernel.call(kernel.vm, KVM_CREATE_VCPU, 0ul) >= 0);
  CHECK(kernel.sev(KVM_SEV_ES_INIT) == -EINVAL);
}

TEST_CASE("Linux 6.12 and later have them") {
  for (const std::string_view name : {"6.12", "7.2"}) {
    INFO(name);
    Kernel kernel(name);
    CHECK(kernel.has(kvm::kCapVmTypes) == 0xd);
    CHECK(kernel.has(kvm::kCapUserMemory2) == 1);
    CHECK(kernel.attribute(0) == 0);
    for (const std::uint64_t number : {1U, 2U}) CHECK(kernel.attribute(number) == (name == "7.2" ? 0 : -ENXIO));
    CHECK(kernel.attribute(3) == -ENXIO);
    CHECK(kernel.sev(KVM_SEV_ES_INIT) == 0);
    CHECK(kernel.sev(KVM_SEV_ES_INIT) == -EINVAL);
    kernel.vm = kernel.call(kernel.kvm_fd, KVM_CREATE_VM, kvm::kVmTypeSevEs);
    kvm::SevInit init{};
    CHECK(kernel.sev(kvm::kSevInit2, &init) == 0);
  }
}

TEST_CASE("kernels up to 6.12 leave the hypervisor bit and the deadline timer to their user") {
  for (const std::string_view name : {"6.1", "6.12", "7.2"}) {
    INFO(name);
    Kernel kernel(name);
    const std::uint32_t listed = name == "7.2" ? 1 : 0;
    CHECK((kernel.features_1_ecx() >> kHypervisor & 1) == listed);
    CHECK((kernel.features_1_ecx() >> kTscDeadline & 1) == listed);
    CHECK(kernel.has(KVM_CAP_TSC_DEADLINE_TIMER) == 1);
  }
}
