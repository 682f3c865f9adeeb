// Files that the user names: read whole, once, before the guest exists.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace sevisor::vmm {

using FileBytes = std::shared_ptr<const std::vector<std::byte>>;

// `what`: "kernel", for messages. Throws Error (kBadUsage) when it cannot be read, is no regular file, is empty, or has
// more than `max_size` bytes.
[[nodiscard]] FileBytes read_input_file(std::string_view what, const std::string& path, std::uint64_t max_size);

}  // namespace sevisor::vmm
