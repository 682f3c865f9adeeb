// The table of hashes that the VMM has had measured at launch, so that the measurement covers what is booted.
// QEMU target/i386/sev.c sev_add_kernel_loader_hashes(); edk2 OvmfPkg/AmdSev. Freestanding.
#pragma once

#include <cstddef>
#include <optional>
#include <span>

#include "firmware/failure.hpp"
#include "firmware/sha256.hpp"

namespace sevisor::firmware {

struct KernelHashes {
  Sha256Digest command_line;  // with the zero that ends it
  Sha256Digest initrd;        // of nothing, if there is none
  Sha256Digest kernel;        // the whole file
};

// `area`: private memory. Leaves `hashes` empty when there is no table, which memory that the launch did not fill
// cannot be mistaken for; kHashesTable when there is one, but malformed, incomplete or with an entry twice.
[[nodiscard]] Failure read_hashes_table(std::span<const std::byte> area, std::optional<KernelHashes>& hashes) noexcept;

}  // namespace sevisor::firmware
