// Memory types: write-back for RAM, uncached for the devices between 3 and 4 GiB (APM vol. 2 section 7.7).
#pragma once

namespace sevisor::firmware {

// Leaves the MTRRs alone when CPUID has none. A host that refuses one of the writes keeps its own settings.
void set_memory_types() noexcept;

}  // namespace sevisor::firmware
