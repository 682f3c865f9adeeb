// Hashes of files that may be large, read piece by piece.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "sev/sha256.hpp"

namespace sevisor::vmm {

struct FileHash {
  std::uint64_t size = 0;  // bytes
  sev::Digest sha256{};
};

// `what`: "kernel", for messages. The file may be empty. Throws Error (kBadUsage) when it cannot be read or is no
// regular file.
[[nodiscard]] FileHash hash_file(std::string_view what, const std::string& path);

}  // namespace sevisor::vmm
