// Between a processor and its VMSA: what VMRUN loads and #VMEXIT stores (APM vol. 2, 15.35.8 and 15.35.9).
#pragma once

#include "emulator/cpu/core.hpp"
#include "emulator/cpu/state/vmsa.hpp"

namespace sevisor::emulator {

// Would VMRUN accept this state (15.5.1)? Also refuses bits that this processor does not have and reserved fields that
// are not zero.
[[nodiscard]] bool vmsa_acceptable(const CpuConfig& config, const Vmsa& vmsa) noexcept;
// `vmsa` is acceptable.
void load_vmsa(Core& core, const Vmsa& vmsa) noexcept;
// Fields without a register here keep their value.
void save_vmsa(const Core& core, Vmsa& vmsa) noexcept;

}  // namespace sevisor::emulator
