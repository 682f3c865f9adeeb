// What the VMM must know of a Linux kernel image: that it is one, where its setup part ends, what fits beside it.
// Linux Documentation/arch/x86/boot.rst. The image is untrusted input.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace sevisor::vmm {

struct BzImage {
  std::size_t setup_size = 0;          // bytes at the start of the file that are the setup part
  std::uint64_t load_address = 0;      // pref_address
  std::uint64_t init_size = 0;         // bytes of RAM that the kernel needs from its load address on
  std::uint64_t initrd_max = 0;        // highest address that the initrd may have
  std::uint32_t command_line_max = 0;  // bytes, without the NUL
};

// `name`: of the file, for messages. Throws Error (kBadUsage): not a bzImage, too old for the 64-bit entry, truncated.
[[nodiscard]] BzImage parse_bzimage(std::span<const std::byte> image, std::string_view name);

// Throws Error (kBadUsage) when the kernel, its initrd and its command line do not fit together into `low_memory` bytes
// of RAM from 0 on.
void check_boot_fits(const BzImage& kernel, std::size_t initrd_size, std::size_t command_line_size,
                     std::uint64_t low_memory);

}  // namespace sevisor::vmm
