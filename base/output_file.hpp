// Files that a command writes: symbolic links, devices and descriptors are written through, never replaced.
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <sys/types.h>

#include "base/unique_fd.hpp"

namespace sevisor {

// The descriptor of this process that a path names: "-" and /dev/stdout are 1, /dev/fd/7 is 7, and so is a symbolic
// link that leads there. To open it again would be another place in the same file, or empty it.
[[nodiscard]] std::optional<int> descriptor_named(const std::string& path);

// The descriptor itself, or open(2) with O_WRONLY | O_CREAT | O_CLOEXEC | `flags`. Without a descriptor errno tells
// why.
[[nodiscard]] UniqueFd open_output(const std::string& path, int flags, mode_t mode) noexcept;

// All of it. Returns 0, or errno of what stopped it.
[[nodiscard]] int write_whole(int fd, std::span<const std::byte> bytes) noexcept;

// Whether a file of this name is replaced as a whole: it is an ordinary file, or none yet, in a folder where another
// can be made. Otherwise it is written in place.
[[nodiscard]] bool can_be_replaced(const std::string& path);

// Writes the whole file: by a new file that takes the name if it can be replaced, else in place. `mode`: of a new file,
// less the user's mask. Returns 0, or errno.
[[nodiscard]] int write_file_whole(const std::string& path, std::span<const std::byte> bytes, mode_t mode);

}  // namespace sevisor
