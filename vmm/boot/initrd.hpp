// Is an initial RAM disk whole? Linux unpacks what there is of a cut-off one and panics for want of /init much later.
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <string>

namespace sevisor::vmm {

// What an initrd lacks, as in "the gzip stream breaks off"; nothing for a whole one and for formats that do not tell
// (bzip2, lzma, lzo, disk images). An initrd is a row of cpio archives, plain or compressed, with zeros between (Linux
// Documentation/driver-api/early-userspace/buffer-format.rst).
[[nodiscard]] std::optional<std::string> why_initrd_is_cut_off(std::span<const std::byte> initrd);

}  // namespace sevisor::vmm
