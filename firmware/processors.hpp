// The application processors of a SEV-ES guest. A hypervisor cannot set a started processor's registers, so each is
// started once by the firmware, in the reset block, and holds there until the operating system's SIPI lets it go to the
// address in the AP jump table. GHCB specification (AMD 56421) section 4.3; reset.S has their code.
#pragma once

#include "firmware/fw_cfg.hpp"
#include "firmware/mtrr.hpp"

namespace sevisor::firmware {

struct Processors {
  unsigned expected = 1;  // with the one that runs this
  unsigned started = 0;   // application processors
  bool jump_table = false;
};

// Registers the jump table with the hypervisor, starts the application processors, gives them the memory types and lets
// them go to their hold. Waits for a bounded time; what then is missing stays off. Without SEV-ES it does nothing:
// there the operating system starts processors as usual.
[[nodiscard]] Processors start_processors(FwCfg& fw_cfg, const std::optional<MsrWrite>& types) noexcept;

}  // namespace sevisor::firmware
