// Memory types: write-back for RAM, uncached for the devices between 3 and 4 GiB (APM vol. 2 section 7.7).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace sevisor::firmware {

struct MsrWrite {
  std::uint32_t msr = 0;
  std::uint64_t value = 0;
};

// What every processor must have in its MTRRs, in the order of writing. Empty when CPUID has no MTRRs or the host
// refuses them.
struct MemoryTypes {
  std::array<MsrWrite, 3> writes{};
  std::size_t count = 0;

  void add(MsrWrite write) noexcept { writes[count++] = write; }
};

// Sets the MTRRs of this processor and returns what it wrote. A host that refuses one of the writes keeps its own
// settings.
MemoryTypes set_memory_types() noexcept;

}  // namespace sevisor::firmware
