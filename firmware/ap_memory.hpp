// Memory of the application processors of a SEV-ES guest while they hold (ap_hold.S): page tables, a small stack and a
// GHCB each. It stays theirs until the operating system has started each of them, so the map reserves it for good: the
// hypervisor keeps the GHCB of a held processor and writes to it when it lets the processor go (Linux
// arch/x86/kvm/svm/sev.c, sev_vcpu_deliver_sipi_vector()).
#pragma once

#include <cstdint>
#include <optional>

#include "firmware/memory_map.hpp"

namespace sevisor::firmware {

struct ApMemory {
  std::uint32_t tables = 0;  // PML4
  std::uint32_t stacks = 0;  // FW_AP_STACK_SIZE bytes each
  std::uint32_t ghcbs = 0;   // a page each, shared in these tables
};

// For `count` processors; below 4 GiB. The tables map onto itself what the hold uses: this memory, the jump table and
// the hold's code, all of it private but for the GHCBs. Nothing when there is no room.
[[nodiscard]] std::optional<ApMemory> make_ap_memory(MemoryMap& map, std::uint32_t count,
                                                     std::uint64_t c_bit_mask) noexcept;

}  // namespace sevisor::firmware
