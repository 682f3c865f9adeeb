// What each CPU type is able to do: the CPUID feature bits and caches of the QEMU model of that name and version
// (QEMU 10 target/i386/cpu.c, builtin_x86_defs). Names of the bits: QEMU's feature_word_info, same file.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace sevisor::vmm {

// The registers of CPUID that hold feature bits, by leaf and register (APM vol. 3 appendix E).
enum FeatureWord : std::uint8_t {
  k1Ecx,
  k1Edx,
  k6Eax,
  k7Ebx,
  k7Ecx,
  k7Edx,
  kXsave1Eax,  // leaf 0xD, sub-leaf 1
  k80000001Ecx,
  k80000001Edx,
  k80000008Ebx,
  k8000000aEdx,
  k80000021Eax,
  kFeatureWords
};
using Features = std::array<std::uint32_t, kFeatureWords>;

struct FeatureRegister {
  std::uint32_t leaf;
  std::uint32_t subleaf;
  unsigned reg;  // 0 EAX, 1 EBX, 2 ECX, 3 EDX
};
[[nodiscard]] const FeatureRegister& feature_register(FeatureWord word) noexcept;

struct CpuModel {
  std::string_view name;
  Features features;
  std::uint32_t l1_instruction;  // Fn8000_0005_EDX
  std::uint32_t l3;              // Fn8000_0006_EDX
  bool l3_complex_indexing;      // Fn8000_001D_EDX_x3[2]
};

// The model of a CPU type, or nullptr: of EPYC-Genoa and later ones only the signature is known here.
[[nodiscard]] const CpuModel* find_cpu_model(std::string_view cpu_type) noexcept;

// What every guest gets besides its model, where the host has it: x2APIC, TSC deadline, "there is a hypervisor", the
// invariant TSC, and the word of processors that do not need a mitigation.
[[nodiscard]] const Features& host_additions() noexcept;

// QEMU's names of the bits that are set, in the order of the words.
[[nodiscard]] std::vector<std::string> feature_names(const Features& features);

}  // namespace sevisor::vmm
