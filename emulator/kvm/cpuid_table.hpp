// CPUID of the emulated processor: what KVM_GET_SUPPORTED_CPUID offers, and what a guest is answered from the table
// that KVM_SET_CPUID2 gave to its vCPU.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "emulator/kvm/personality.hpp"
#include "ghcb/hypervisor/environment.hpp"
#include "kvm/abi.hpp"

namespace sevisor::emulator {

// All that the engine implements and no more. The leaves from 0x40000000 on are absent: no paravirtual interface is
// offered.
[[nodiscard]] std::vector<kvm_cpuid_entry2> supported_cpuid(unsigned c_bit,
                                                            const Personality& personality = newest_personality());

inline constexpr std::size_t kMaxCpuidEntries = 256;  // KVM_MAX_CPUID_ENTRIES

// What the answer depends on besides the table.
struct CpuidContext {
  bool osxsave = false;  // CR4.OSXSAVE
  bool apic = true;      // APIC_BASE[11]
  std::uint64_t xcr0 = 1;
};
[[nodiscard]] ghcb::CpuidValues answer_cpuid(std::span<const kvm_cpuid_entry2> table, std::uint32_t leaf,
                                             std::uint32_t sub_leaf, const CpuidContext& context);

// The entry for a leaf and sub-leaf, null if there is none.
[[nodiscard]] const kvm_cpuid_entry2* find_cpuid(std::span<const kvm_cpuid_entry2> table, std::uint32_t leaf,
                                                 std::uint32_t sub_leaf);

}  // namespace sevisor::emulator
