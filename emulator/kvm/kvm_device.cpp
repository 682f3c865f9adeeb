#include "emulator/kvm/kvm_device.hpp"

#include <cerrno>
#include <optional>
#include <vector>

#include "emulator/cpu/state/features.hpp"
#include "emulator/kvm/capabilities.hpp"
#include "emulator/kvm/cpuid_table.hpp"
#include "emulator/kvm/msr_entries.hpp"
#include "emulator/kvm/msr_store.hpp"
#include "emulator/kvm/user_memory.hpp"
#include "emulator/kvm/vm.hpp"

namespace sevisor::emulator {

namespace {

int put_indices(void* argument, std::span<const std::uint32_t> indices) {
  kvm_msr_list header{};
  if (!get_user(header, argument)) return -EFAULT;
  const std::uint32_t room = header.nmsrs;
  header.nmsrs = static_cast<std::uint32_t>(indices.size());
  if (!put_user(argument, header)) return -EFAULT;
  if (room < indices.size()) return -E2BIG;
  auto* first = static_cast<std::byte*>(argument) + offsetof(kvm_msr_list, indices);
  return copy_to_user(first, std::as_bytes(indices)) ? 0 : -EFAULT;
}

// KVM does not say how many there are.
int put_cpuid(void* argument, std::span<const kvm_cpuid_entry2> table) {
  kvm_cpuid2 header{};
  if (!get_user(header, argument)) return -EFAULT;
  if (header.nent < table.size()) return -E2BIG;
  header.nent = static_cast<std::uint32_t>(table.size());
  auto* first = static_cast<std::byte*>(argument) + offsetof(kvm_cpuid2, entries);
  return copy_to_user(first, std::as_bytes(table)) && put_user(argument, header) ? 0 : -EFAULT;
}

}  // namespace

const Ioctl<KvmDevice> KvmDevice::kIoctls[] = {
    {KVM_GET_API_VERSION, &KvmDevice::get_api_version},
    {KVM_CREATE_VM, &KvmDevice::create_vm},
    {KVM_CHECK_EXTENSION, &KvmDevice::check_extension},
    {KVM_GET_VCPU_MMAP_SIZE, &KvmDevice::get_vcpu_mmap_size},
    {KVM_GET_SUPPORTED_CPUID, &KvmDevice::get_supported_cpuid},
    {KVM_GET_MSR_INDEX_LIST, &KvmDevice::get_msr_index_list},
    {KVM_GET_MSR_FEATURE_INDEX_LIST, &KvmDevice::get_feature_index_list},
    {KVM_GET_MSRS, &KvmDevice::get_feature_msrs},
    {KVM_GET_EMULATED_CPUID, &KvmDevice::get_emulated_cpuid},
    {KVM_X86_GET_MCE_CAP_SUPPORTED, &KvmDevice::get_machine_check_features},
    {KVM_GET_DEVICE_ATTR, &KvmDevice::get_device_attribute},
    {KVM_HAS_DEVICE_ATTR, &KvmDevice::has_device_attribute},
};

int KvmDevice::ioctl(unsigned long request, void* argument) {
  return dispatch<KvmDevice>(*this, kIoctls, request, argument, -EINVAL);
}

int KvmDevice::get_api_version(void* argument) { return argument == nullptr ? KVM_API_VERSION : -EINVAL; }

int KvmDevice::create_vm(void* argument) {
  const auto type = reinterpret_cast<std::uintptr_t>(argument);
  const int types = platform_->personality().vm_types ? kVmTypes : 1 << kvm::kVmTypeDefault;
  if (type >= 32 || (types >> type & 1) == 0) return -EINVAL;
  return platform_->descriptors().add(std::make_shared<VmFile>(std::make_shared<Vm>(platform_, type)));
}

int KvmDevice::check_extension(void* argument) {
  return emulator::check_extension(static_cast<long>(reinterpret_cast<std::uintptr_t>(argument)),
                                   platform_->personality());
}

int KvmDevice::get_vcpu_mmap_size(void* argument) {
  return argument == nullptr ? static_cast<int>(kvm::kVcpuMmapSize) : -EINVAL;
}

int KvmDevice::get_supported_cpuid(void* argument) {
  return put_cpuid(argument, supported_cpuid(platform_->options().c_bit, platform_->personality()));
}

int KvmDevice::get_msr_index_list(void* argument) { return put_indices(argument, MsrStore::index_list()); }
int KvmDevice::get_feature_index_list(void* argument) { return put_indices(argument, MsrStore::feature_list()); }

int KvmDevice::get_feature_msrs(void* argument) {
  return read_msr_entries(argument, [](std::uint32_t index) { return MsrStore::read_feature(index); });
}

// Features that the processor lacks and KVM makes up for: none. Linux arch/x86/kvm/cpuid.c __do_cpuid_func_emulated()
// has these leaves.
int KvmDevice::get_emulated_cpuid(void* argument) {
  kvm_cpuid_entry2 basic{};
  basic.eax = 7;
  kvm_cpuid_entry2 features{};
  features.function = 1;
  kvm_cpuid_entry2 more{};
  more.function = 7;
  more.flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX;
  const kvm_cpuid_entry2 table[] = {basic, features, more};
  return put_cpuid(argument, table);
}

int KvmDevice::get_machine_check_features(void* argument) {
  return put_user(argument, kMachineCheckFeatures) ? 0 : -EFAULT;
}

// Linux arch/x86/kvm/x86.c __kvm_x86_dev_get_attr(), svm/sev.c sev_dev_get_attr().
namespace {
std::optional<std::uint64_t> attribute_value(const kvm_device_attr& attribute, const Personality& personality) {
  if (attribute.group == 0 && attribute.attr == KVM_X86_XCOMP_GUEST_SUPP) return supported_xcr0();
  if (attribute.group == kvm::kDeviceAttrGroupSev && attribute.attr < personality.sev_attributes) {
    return attribute.attr == kvm::kDeviceAttrSevVmsaFeatures ? kSupportedVmsaFeatures : 0;
  }
  return std::nullopt;
}
}  // namespace

int KvmDevice::get_device_attribute(void* argument) {
  kvm_device_attr attribute{};
  if (!get_user(attribute, argument)) return -EFAULT;
  const auto value = attribute_value(attribute, platform_->personality());
  if (!value) return -ENXIO;
  return put_user(user_pointer(attribute.addr), *value) ? 0 : -EFAULT;
}

int KvmDevice::has_device_attribute(void* argument) {
  kvm_device_attr attribute{};
  if (!get_user(attribute, argument)) return -EFAULT;
  return attribute_value(attribute, platform_->personality()) ? 0 : -ENXIO;
}

}  // namespace sevisor::emulator
