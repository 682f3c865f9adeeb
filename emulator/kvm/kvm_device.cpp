#include "emulator/kvm/kvm_device.hpp"

#include <cerrno>

#include "emulator/kvm/capabilities.hpp"
#include "emulator/kvm/cpuid_table.hpp"
#include "emulator/kvm/msr_store.hpp"
#include "emulator/kvm/user_memory.hpp"
#include "emulator/kvm/vm.hpp"

namespace sevisor::emulator {

const Ioctl<KvmDevice> KvmDevice::kIoctls[] = {
    {KVM_GET_API_VERSION, &KvmDevice::get_api_version},
    {KVM_CREATE_VM, &KvmDevice::create_vm},
    {KVM_CHECK_EXTENSION, &KvmDevice::check_extension},
    {KVM_GET_VCPU_MMAP_SIZE, &KvmDevice::get_vcpu_mmap_size},
    {KVM_GET_SUPPORTED_CPUID, &KvmDevice::get_supported_cpuid},
    {KVM_GET_MSR_INDEX_LIST, &KvmDevice::get_msr_index_list},
    {KVM_GET_MSR_FEATURE_INDEX_LIST, &KvmDevice::get_feature_index_list},
    {KVM_GET_DEVICE_ATTR, &KvmDevice::device_attribute},
    {KVM_HAS_DEVICE_ATTR, &KvmDevice::device_attribute},
};

int KvmDevice::ioctl(unsigned long request, void* argument) {
  return dispatch<KvmDevice>(*this, kIoctls, request, argument, -EINVAL);
}

int KvmDevice::get_api_version(void* argument) { return argument == nullptr ? KVM_API_VERSION : -EINVAL; }

int KvmDevice::create_vm(void* argument) {
  if (reinterpret_cast<std::uintptr_t>(argument) != kvm::kVmTypeDefault) return -EINVAL;
  return platform_->descriptors().add(std::make_shared<VmFile>(std::make_shared<Vm>(platform_)));
}

int KvmDevice::check_extension(void* argument) {
  return emulator::check_extension(static_cast<long>(reinterpret_cast<std::uintptr_t>(argument)));
}

int KvmDevice::get_vcpu_mmap_size(void* argument) {
  return argument == nullptr ? static_cast<int>(kvm::kVcpuMmapSize) : -EINVAL;
}

int KvmDevice::get_supported_cpuid(void* argument) {
  kvm_cpuid2 header{};
  if (!get_user(header, argument)) return -EFAULT;
  const auto table = supported_cpuid(platform_->options().c_bit);
  // KVM does not say how many there are.
  if (header.nent < table.size()) return -E2BIG;
  header.nent = static_cast<std::uint32_t>(table.size());
  auto* first = static_cast<std::byte*>(argument) + offsetof(kvm_cpuid2, entries);
  return copy_to_user(first, std::as_bytes(std::span(table))) && put_user(argument, header) ? 0 : -EFAULT;
}

int KvmDevice::get_msr_index_list(void* argument) {
  kvm_msr_list header{};
  if (!get_user(header, argument)) return -EFAULT;
  const auto indices = MsrStore::index_list();
  const std::uint32_t room = header.nmsrs;
  header.nmsrs = static_cast<std::uint32_t>(indices.size());
  if (!put_user(argument, header)) return -EFAULT;
  if (room < indices.size()) return -E2BIG;
  auto* first = static_cast<std::byte*>(argument) + offsetof(kvm_msr_list, indices);
  return copy_to_user(first, std::as_bytes(indices)) ? 0 : -EFAULT;
}

int KvmDevice::get_feature_index_list(void* argument) {
  kvm_msr_list header{};
  if (!get_user(header, argument)) return -EFAULT;
  header.nmsrs = 0;  // none: what there is, CPUID says
  return put_user(argument, header) ? 0 : -EFAULT;
}

// VMs of the types that KVM_X86_SEV_VMSA_FEATURES is for are not offered, nor is AMX.
int KvmDevice::device_attribute(void* argument) {
  kvm_device_attr attribute{};
  return get_user(attribute, argument) ? -ENXIO : -EFAULT;
}

}  // namespace sevisor::emulator
