// Memory types (APM vol. 2 section 7.7).
#pragma once

#include <cstdint>
#include <optional>

namespace sevisor::firmware {

struct MsrWrite {
  std::uint32_t msr = 0;
  std::uint64_t value = 0;
};

// Makes write-back the default type of this processor and returns what it wrote, for the others. Devices need no range
// of their own: operating systems map them uncached by their page tables. Nothing when there are no MTRRs or the host
// refuses the write; then the reset value stays, and Linux says that MTRRs are off.
[[nodiscard]] std::optional<MsrWrite> set_memory_types() noexcept;

}  // namespace sevisor::firmware
