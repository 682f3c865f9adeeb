// From fw_cfg to the kernel's entry: a bzImage by Linux's 64-bit boot protocol (Documentation/arch/x86/boot.rst), an
// ELF file by that or by PVH (Xen docs/misc/pvh.pandoc). QEMU docs/specs/fw_cfg.rst has the items.
#pragma once

#include <cstdint>
#include <optional>

#include "firmware/failure.hpp"
#include "firmware/fw_cfg.hpp"
#include "firmware/kernel_hashes.hpp"
#include "firmware/memory_map.hpp"

namespace sevisor::firmware {

// What was loaded, and where.
struct LoadedKernel {
  std::uint64_t entry = 0;
  bool pvh = false;  // enter it the PVH way: 32 bits, no paging
  std::uint64_t kernel = 0, kernel_size = 0;
  std::uint64_t memory_size = 0;  // bytes of RAM that the kernel needs from its address on
  std::uint64_t initrd = 0, initrd_size = 0;
};

// RAM as fw_cfg (or else the CMOS) reports it, less what the firmware keeps.
[[nodiscard]] Failure read_memory_map(FwCfg& fw_cfg, MemoryMap& map) noexcept;

// Places the ACPI tables in memory of `map`, where they then have their type. `rsdp` is 0 when the VMM gives none.
[[nodiscard]] Failure load_acpi_tables(FwCfg& fw_cfg, MemoryMap& map, std::uint64_t& rsdp) noexcept;

// What boot_params gets besides the kernel and what belongs to it.
struct BootExtras {
  std::uint64_t rsdp = 0;        // address, 0 without
  std::uint64_t setup_data = 0;  // address of the first item, 0 without
};

// Loads kernel, initrd and command line into private memory and fills boot_params and hvm_start_info. With `hashes`
// each of the three is compared before a byte of it is used.
[[nodiscard]] Failure load_kernel(FwCfg& fw_cfg, const MemoryMap& map, const std::optional<KernelHashes>& hashes,
                                  const BootExtras& extras, LoadedKernel& loaded) noexcept;

[[noreturn]] void start_kernel(const LoadedKernel& loaded) noexcept;

}  // namespace sevisor::firmware
