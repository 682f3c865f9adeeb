// SMBIOS tables as fw_cfg hands them over: an entry point without an address, and the structures. DMTF DSP0134
// section 5.2; QEMU docs/specs/fw_cfg.rst.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "firmware/fw_cfg.hpp"
#include "firmware/memory_map.hpp"

namespace sevisor::firmware {

// Sets address and checksums of an entry point, "_SM3_" or "_SM_", of `table_size` bytes of structures at `tables`.
// False, when it is none, or of a version that cannot hold the address.
[[nodiscard]] bool complete_smbios_entry(std::span<std::byte> entry, std::uint64_t tables,
                                         std::uint32_t table_size) noexcept;

// Places what fw_cfg has: structures in memory that the map then reserves, the entry point at 0xF0000, where systems
// without UEFI look for it. Nothing depends on them, so malformed ones are left out.
void load_smbios(FwCfg& fw_cfg, MemoryMap& map) noexcept;

}  // namespace sevisor::firmware
