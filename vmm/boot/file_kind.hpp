// What a file is that is no kernel here, in words.
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <string>

namespace sevisor::vmm {

// Whether it is a PE executable, as UEFI starts them; a bzImage with an EFI stub is one too. `image`: its first 64 KiB
// at least.
[[nodiscard]] bool is_pe(std::span<const std::byte> image);

// A file of a known kind that no firmware here boots as a kernel: what it is and what to do, as in "it is an EFI
// unified kernel image ...". Nothing for others, a bzImage and an ELF file among them.
struct FileKind {
  std::string is;      // "it is a gzip stream"
  std::string advice;  // an imperative sentence
};
[[nodiscard]] std::optional<FileKind> kind_of_no_kernel(std::span<const std::byte> image);

}  // namespace sevisor::vmm
