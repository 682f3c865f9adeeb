// Bits of CPUID.
#pragma once

#include <array>
#include <cpuid.h>
#include <cstddef>

namespace sevisor::cpu_diff {

enum CpuidRegister : std::size_t { kEax, kEbx, kEcx, kEdx };

struct CpuidBit {
  unsigned leaf = 0;
  unsigned subleaf = 0;
  CpuidRegister which = kEax;
  unsigned bit = 0;
};

// Bit `bit` of a register of the host's CPUID leaf `leaf`, subleaf 0; false where there is no such leaf.
[[nodiscard]] inline bool cpuid_bit(unsigned leaf, CpuidRegister which, unsigned bit) {
  std::array<unsigned, 4> r{};
  return __get_cpuid_count(leaf, 0, &r[kEax], &r[kEbx], &r[kEcx], &r[kEdx]) != 0 && (r[which] >> bit & 1) != 0;
}

}  // namespace sevisor::cpu_diff
