// Is an initial RAM disk whole? Linux unpacks what there is of a cut-off one and panics for want of /init much later.
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <string>

namespace sevisor::vmm {

struct InitrdFindings {
  // What no kernel can unpack, as in "its gzip stream from byte 512 on breaks off"; nothing for a whole one and for
  // formats that do not tell (bzip2, lzma, lzo, disk images).
  std::optional<std::string> cut_off;
  // What Linux reads past, with a message, as in "what begins at byte 516 is neither ...".
  std::optional<std::string> dropped;
};

// An initrd is a row of cpio archives, plain or compressed, with zeros between (Linux
// Documentation/driver-api/early-userspace/buffer-format.rst; what is taken in practice is in init/initramfs.c).
[[nodiscard]] InitrdFindings look_at_initrd(std::span<const std::byte> initrd);

}  // namespace sevisor::vmm
