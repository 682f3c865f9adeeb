// Guest CPU types by the names QEMU has for them, and the signature that each puts into CPUID Fn0000_0001_EAX.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace sevisor::sev {

struct CpuType {
  std::string_view name;
  unsigned family;    // base plus extended family, decimal as in 23 for EPYC
  unsigned model;     // extended and base model together
  unsigned stepping;  // 0 to 15
};

inline constexpr std::string_view kDefaultCpuType = "EPYC-v4";

// CPUID Fn0000_0001_EAX: AMD APM vol. 3 appendix E.3.2. Pre: family <= 270, model <= 255, stepping <= 15.
[[nodiscard]] constexpr std::uint32_t cpu_signature(unsigned family, unsigned model, unsigned stepping) noexcept {
  const std::uint32_t base_family = family > 0xf ? 0xf : family;
  const std::uint32_t extended_family = family > 0xf ? family - 0xf : 0;
  return extended_family << 20 | (model >> 4 & 0xf) << 16 | base_family << 8 | (model & 0xf) << 4 | (stepping & 0xf);
}
[[nodiscard]] constexpr std::uint32_t cpu_signature(const CpuType& type) noexcept {
  return cpu_signature(type.family, type.model, type.stepping);
}

// Throws Error (kBadUsage) that lists the names when there is no such type.
[[nodiscard]] const CpuType& find_cpu_type(std::string_view name);

// All of them; several have the same signature.
[[nodiscard]] std::span<const CpuType> all_cpu_types() noexcept;

// "EPYC, EPYC-v1, ...".
[[nodiscard]] std::string cpu_type_names();

}  // namespace sevisor::sev
