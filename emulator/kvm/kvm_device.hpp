// /dev/kvm. Linux virt/kvm/kvm_main.c kvm_dev_ioctl(), arch/x86/kvm/x86.c kvm_arch_dev_ioctl().
#pragma once

#include <memory>

#include "emulator/kvm/file.hpp"
#include "emulator/kvm/platform.hpp"

namespace sevisor::emulator {

class KvmDevice final : public File {
 public:
  explicit KvmDevice(std::shared_ptr<Platform> platform) : platform_(std::move(platform)) {}
  int ioctl(unsigned long request, void* argument) override;

 private:
  static const Ioctl<KvmDevice> kIoctls[];

  int get_api_version(void* argument);
  int create_vm(void* argument);
  int check_extension(void* argument);
  int get_vcpu_mmap_size(void* argument);
  int get_supported_cpuid(void* argument);
  int get_msr_index_list(void* argument);
  int get_feature_index_list(void* argument);
  int get_feature_msrs(void* argument);
  int get_emulated_cpuid(void* argument);
  int get_machine_check_features(void* argument);
  int get_device_attribute(void* argument);
  int has_device_attribute(void* argument);

  std::shared_ptr<Platform> platform_;
};

}  // namespace sevisor::emulator
