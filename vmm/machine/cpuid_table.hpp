// The CPUID leaves of one vCPU: what CPU type and host have in common, with the type's signature and caches, the
// topology, and what KVM leaves to its user filled in. AMD APM vol. 3 appendix E; docs/cpuid.md has each rule with its
// source.
#pragma once

#include <cstdint>

#include "kvm/handles.hpp"
#include "vmm/machine/cpu_model.hpp"

namespace sevisor::vmm {

struct CpuidOptions {
  std::uint32_t signature = 0;  // Fn0000_0001_EAX; 0: the host's own
  unsigned vcpus = 1;
  unsigned apic_id = 0;             // of the vCPU whose table this is
  const CpuModel* model = nullptr;  // nullptr: all that the host has
  bool tsc_deadline = false;        // KVM_CAP_TSC_DEADLINE_TIMER
  bool encrypted = false;           // an SEV-ES guest's
};

// One socket, one thread a core. `supported`: KVM_GET_SUPPORTED_CPUID.
[[nodiscard]] kvm::CpuidTable make_cpuid_table(const kvm::CpuidTable& supported, const CpuidOptions& options);

// What of the model the host lacks.
[[nodiscard]] Features lacking_features(const kvm::CpuidTable& supported, const CpuModel& model);

// The leaf's entry, or nullptr.
[[nodiscard]] const kvm_cpuid_entry2* find_leaf(const kvm::CpuidTable& table, std::uint32_t leaf,
                                                std::uint32_t subleaf = 0);

}  // namespace sevisor::vmm
