// What the age of the host's kernel changes in its answers. One row a kernel, one column a difference; all else is the
// same in them as far as it was compared. The newest is the default.
#pragma once

#include <span>
#include <string_view>

#include "ghcb/hypervisor/event_table.hpp"

namespace sevisor::emulator {

struct Personality {
  std::string_view kernel;  // "6.1": the newest release of that series
  // KVM_CAP_VM_TYPES, VMs of types 2 and 3, KVM_SEV_INIT2, the attribute of VMSA features, version 2 of the GHCB
  // protocol. Since 6.10: Linux arch/x86/kvm/svm/sev.c sev_guest_init2(), x86.c kvm_is_vm_type_supported().
  bool vm_types;
  // How many attributes of /dev/kvm's group KVM_X86_GRP_SEV there are, from 0 on: the features of a VMSA, then two of
  // SNP's, which read 0 without it: sev_dev_get_attr().
  unsigned sev_attributes;
  // KVM_SET_USER_MEMORY_REGION2. Since 6.8: virt/kvm/kvm_main.c.
  bool memory_region_2;
  // KVM_GET_SUPPORTED_CPUID has the hypervisor bit and the TSC deadline timer. Not in 6.12, in 7.2:
  // arch/x86/kvm/cpuid.c kvm_initialize_cpu_caps().
  bool lists_hypervisor;
  // A shutdown of an SEV-ES guest is KVM_EXIT_SHUTDOWN; before, KVM_RUN fails with EINVAL: arch/x86/kvm/svm/svm.c
  // shutdown_interception().
  bool shutdown_exits;
  // A second initialisation: EINVAL; before, EBUSY: sev_guest_init().
  int second_init_errno;
  // KVM_MEMORY_ENCRYPT_REG_REGION takes memory that can only be read; before, ENOMEM: sev_mem_enc_register_region().
  bool pins_regions_to_read;
  // Which GHCB requests are known: sev_es_validate_vmgexit(), sev_handle_vmgexit_msr_protocol().
  ghcb::KnownRequests requests;
};

// Oldest first.
[[nodiscard]] std::span<const Personality> personalities() noexcept;
[[nodiscard]] const Personality& newest_personality() noexcept;
// By its kernel's name; null: none of that name.
[[nodiscard]] const Personality* find_personality(std::string_view kernel) noexcept;

}  // namespace sevisor::emulator
