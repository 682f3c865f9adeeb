// Processors that tests make up: vendor, family, model and those bits of CPUID that the comparison looks at.
#pragma once

#include <initializer_list>
#include <vector>

#include "tests/cpu_diff/processor.hpp"

namespace sevisor::cpu_diff {

inline constexpr CpuidBit kAvx512f{7, 0, kEbx, 16};
inline constexpr CpuidBit kHasGfni{7, 0, kEcx, 8};
inline constexpr CpuidBit kHasVaes{7, 0, kEcx, 9};
inline constexpr CpuidBit kHasVpclmulqdq{7, 0, kEcx, 10};
inline constexpr CpuidBit kHasAmxTile{7, 0, kEdx, 24};
inline constexpr CpuidBit kHasAvxVnni{7, 1, kEax, 4};

inline Processor made_up(const char* name, unsigned family, unsigned model, std::initializer_list<CpuidBit> bits) {
  Processor p{.name = name, .family = family, .model = model};
  for (const CpuidBit& bit : bits) p.set(bit);
  return p;
}

inline Processor skylake_client() { return made_up("GenuineIntel", 6, 0x5e, {}); }
inline Processor sapphire_rapids() {
  return made_up("GenuineIntel", 6, 0x8f,
                 {kAvx512f, kHasGfni, kHasVaes, kHasVpclmulqdq, kHasAmxTile, kHasAvxVnni, kLa57});
}
inline Processor zen2() { return made_up("AuthenticAMD", 0x17, 0x31, {}); }
inline Processor zen3() { return made_up("AuthenticAMD", 0x19, 0x01, {kHasVaes, kHasVpclmulqdq}); }
inline Processor zen4() {
  return made_up("AuthenticAMD", 0x19, 0x11, {kAvx512f, kHasGfni, kHasVaes, kHasVpclmulqdq, kLa57, kFastCmpsb});
}
// With what KVM hides, and with GFNI hidden.
inline Processor zen4_guest() {
  return made_up("AuthenticAMD", 0x19, 0x11, {kAvx512f, kHasVaes, kHasVpclmulqdq, kHypervisor});
}
inline Processor zen5() {
  return made_up("AuthenticAMD", 0x1a, 0x02,
                 {kAvx512f, kHasGfni, kHasVaes, kHasVpclmulqdq, kHasAvxVnni, kLa57, kFastCmpsb});
}
inline Processor hygon() { return made_up("HygonGenuine", 0x18, 0x00, {}); }

inline std::vector<Processor> all_profiles() {
  return {skylake_client(), sapphire_rapids(), zen2(), zen3(), zen4(), zen4_guest(), zen5(), hygon()};
}

}  // namespace sevisor::cpu_diff
