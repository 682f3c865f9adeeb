// Sizes as people write them.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace sevisor::vmm {

// "512M", "2G", "262144K", "1T" in powers of 1024; a bare number counts MiB, as with QEMU. Lower case is taken too.
// `option`: its name, for messages. Throws Error (kBadUsage) when it is no such size, or has more than 64 bits.
[[nodiscard]] std::uint64_t parse_size(std::string_view option, std::string_view text);

// "512 MiB", "2 GiB", "5 bytes": the largest unit that divides it.
[[nodiscard]] std::string size_text(std::uint64_t bytes);

}  // namespace sevisor::vmm
