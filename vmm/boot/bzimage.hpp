// What the VMM must know of a bzImage: that it is one, where its setup part ends, what fits beside it.
// Linux Documentation/arch/x86/boot.rst. The image is untrusted input.
#pragma once

#include <cstddef>
#include <span>
#include <string_view>

#include "vmm/boot/kernel_image.hpp"

namespace sevisor::vmm {

// `name`: of the file, for messages. Throws Error (kBadUsage): not a bzImage, too old for the 64-bit entry, truncated.
[[nodiscard]] KernelImage parse_bzimage(std::span<const std::byte> image, std::string_view name);

}  // namespace sevisor::vmm
