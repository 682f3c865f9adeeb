// The application processors. Under SEV-ES a hypervisor cannot set a started processor's registers, so each is started
// once by the firmware, in the reset block, and holds there until the operating system's SIPI lets it go to the address
// in the AP jump table. GHCB specification (AMD 56421) section 4.3; ap_hold.S has their code. Elsewhere the operating
// system starts processors as usual, and the firmware only gives them the first one's memory types.
#pragma once

#include "firmware/fw_cfg.hpp"
#include "firmware/memory_map.hpp"
#include "firmware/mtrr.hpp"

namespace sevisor::firmware {

struct Processors {
  unsigned others = 0;     // application processors, as fw_cfg counts them
  unsigned missing = 0;    // of these, how many did not come when they were started
  bool jump_table = true;  // false: SEV-ES, and the hypervisor takes none, so none of the others can be started
};

// Registers the jump table with the hypervisor (SEV-ES), starts the application processors, gives them the memory types
// and lets them go to their hold, for which the map gives up memory. Waits for a bounded time; what then is missing
// stays off. With more processors than 8-bit APIC IDs can name, the first one's APIC is put into x2APIC mode.
[[nodiscard]] Processors start_processors(FwCfg& fw_cfg, MemoryMap& map, const std::optional<MsrWrite>& types) noexcept;

}  // namespace sevisor::firmware
