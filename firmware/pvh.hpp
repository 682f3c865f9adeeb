// What a guest finds at its PVH entry: hvm_start_info (Xen docs/misc/pvh.pandoc,
// xen/include/public/arch-x86/hvm/start_info.h). Freestanding.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "firmware/bzimage.hpp"
#include "firmware/memory_map.hpp"

namespace sevisor::firmware {

inline constexpr std::size_t kStartInfoBytes = 4096;  // hvm_start_info, then the module list, then the memory map

// Fills zeroed memory at guest-physical `address`, which `info` is.
void fill_start_info(std::span<std::byte, kStartInfoBytes> info, std::uint64_t address, const BootRequest& request,
                     const MemoryMap& map) noexcept;

}  // namespace sevisor::firmware
