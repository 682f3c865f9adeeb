// The points of the kernel's sev_init2_tests.
#include <algorithm>

#include "sev_rig.hpp"

using namespace sevisor;
using namespace sevisor::conformance;

namespace {

struct Init2 : SevHost {
  int init2(unsigned long type, const kvm::SevInit& init = {}) {
    return command_with(kvm.create_vm(type), kvm::kSevInit2, init);
  }
  std::uint64_t supported_features() {
    std::uint64_t features = 0;
    kvm_device_attr attribute{};
    attribute.group = kvm::kDeviceAttrGroupSev;
    attribute.attr = kvm::kDeviceAttrSevVmsaFeatures;
    attribute.addr = reinterpret_cast<std::uintptr_t>(&features);
    REQUIRE(answer(kvm.descriptor(), KVM_HAS_DEVICE_ATTR, &attribute) == 0);
    REQUIRE(answer(kvm.descriptor(), KVM_GET_DEVICE_ATTR, &attribute) == 0);
    return features;
  }
};

}  // namespace

TEST_CASE_METHOD(Init2, "the attribute with the VMSA's features", "[sev]") {
  if (!kernel_has(Kind::kSevEsInit2)) return;
  std::uint64_t features = 0;
  kvm_device_attr attribute{};
  attribute.group = kvm::kDeviceAttrGroupSev;
  attribute.attr = 9;  // SNP's are 1 and 2, where the kernel has them
  attribute.addr = reinterpret_cast<std::uintptr_t>(&features);
  CHECK(answer(kvm.descriptor(), KVM_HAS_DEVICE_ATTR, &attribute) == -ENXIO);
  attribute.attr = kvm::kDeviceAttrSevVmsaFeatures;
  attribute.addr = 0;
  CHECK(answer(kvm.descriptor(), KVM_GET_DEVICE_ATTR, &attribute) == -EFAULT);
  attribute.group = kvm::kDeviceAttrGroupSev + 1;
  CHECK(answer(kvm.descriptor(), KVM_HAS_DEVICE_ATTR, &attribute) == -ENXIO);
  CHECK((supported_features() & ~std::uint64_t{1 << 5}) == 0);  // DebugSwap at the most
}

TEST_CASE_METHOD(Init2, "CPUID and the VM types agree", "[sev]") {
  if (!kernel_has(Kind::kSevEsInit2)) return;
  const kvm::CpuidTable table = kvm.supported_cpuid();
  const auto leaf = std::ranges::find(table, 0x8000001fU, &kvm_cpuid_entry2::function);
  REQUIRE(leaf != table.end());
  const std::pair<unsigned, unsigned long> pairs[] = {
      {1, kvm::kVmTypeSev}, {3, kvm::kVmTypeSevEs}, {4, kvm::kVmTypeSnp}};
  for (const auto& [bit, type] : pairs) {
    INFO("type " << type);
    CHECK((leaf->eax >> bit & 1) == (kvm.has_vm_type(type) ? 1 : 0));
  }
}

TEST_CASE_METHOD(Init2, "KVM_SEV_INIT2 is for VMs of its types", "[sev]") {
  if (!kernel_has(Kind::kSevEsInit2)) return;
  CHECK(init2(kvm::kVmTypeDefault) == -EINVAL);
  for (const unsigned long type : {kvm::kVmTypeSev, kvm::kVmTypeSevEs}) {
    INFO("type " << type);
    CHECK(init2(type) == 0);
    CHECK(firmware_error == 0);
    const kvm::Vm vm = kvm.create_vm(type);
    CHECK(command(vm, KVM_SEV_INIT) == -EINVAL);
    CHECK(command(vm, KVM_SEV_ES_INIT) == -EINVAL);
    CHECK(command(vm, kvm::kSevInit2) == -EFAULT);
    CHECK(command_with(vm, kvm::kSevInit2, kvm::SevInit{}) == 0);
    CHECK(command_with(vm, kvm::kSevInit2, kvm::SevInit{}) == -EINVAL);
    const kvm::Vm late = kvm.create_vm(type);
    const kvm::Vcpu vcpu = late.create_vcpu(0);
    CHECK(command_with(late, kvm::kSevInit2, kvm::SevInit{}) == -EINVAL);
    CHECK(vcpu.run() == EINVAL);  // not initialised
  }
}

TEST_CASE_METHOD(Init2, "flags, features and versions of KVM_SEV_INIT2", "[sev]") {
  if (!kernel_has(Kind::kSevEsInit2)) return;
  for (const unsigned long type : {kvm::kVmTypeSev, kvm::kVmTypeSevEs}) {
    const bool es = type == kvm::kVmTypeSevEs;
    const std::uint64_t features = es ? supported_features() : 0;
    for (unsigned bit = 0; bit < 32; ++bit) CHECK(init2(type, {.flags = 1U << bit}) == -EINVAL);
    for (unsigned bit = 0; bit < 64; ++bit) {
      INFO("type " << type << ", feature " << bit);
      CHECK(init2(type, {.vmsa_features = std::uint64_t{1} << bit}) == ((features >> bit & 1) != 0 ? 0 : -EINVAL));
    }
    CHECK(init2(type, {.ghcb_version = 1}) == (es ? 0 : -EINVAL));
    CHECK(init2(type, {.ghcb_version = 2}) == (es ? 0 : -EINVAL));
    CHECK(init2(type, {.ghcb_version = 3}) == -EINVAL);
  }
}
