// A kernel to boot, of whatever format the firmware can load. The image is untrusted input.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace sevisor::vmm {

struct KernelImage {
  std::size_t setup_size = 0;          // bytes at the start of the file that fw_cfg hands out as the setup part
  std::uint64_t load_address = 0;      // preferred
  std::uint64_t init_size = 0;         // bytes of RAM that the kernel needs from its load address on
  std::uint64_t initrd_max = 0;        // highest address that the initrd may have
  std::uint32_t command_line_max = 0;  // bytes, without the NUL
};

enum class BootedBy {
  kOwnFirmware,
  kOther,  // UEFI, it seems, which starts any PE executable: a unified kernel image, a boot loader
};

// A bzImage, or a static ELF executable with a 64-bit or a PVH entry; which one is told by its first bytes. `name`: of
// the file, for messages. Throws Error (kBadUsage) when the firmware could not boot it.
[[nodiscard]] KernelImage parse_kernel_image(std::span<const std::byte> image, std::string_view name,
                                             BootedBy firmware = BootedBy::kOwnFirmware);

// Throws Error (kBadUsage) when the kernel, its initrd and its command line do not fit together into `low_memory` bytes
// of RAM from 0 on.
void check_boot_fits(const KernelImage& kernel, std::size_t initrd_size, std::size_t command_line_size,
                     std::uint64_t low_memory);

}  // namespace sevisor::vmm
