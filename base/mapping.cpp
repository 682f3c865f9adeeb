#include "base/mapping.hpp"

#include <cerrno>
#include <fmt/format.h>
#include <sys/mman.h>

#include "base/error.hpp"

namespace sevisor {

Mapping Mapping::anonymous(std::size_t size, int protection) {
  void* address = ::mmap(nullptr, size, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (address == MAP_FAILED) {
    throw Error(ExitCode::kBadUsage, fmt::format("map {} MiB of memory", size >> 20), errno_text(errno),
                "Ask for less memory with --memory, or raise the limit that 'ulimit -v' shows");
  }
  return {address, size};
}

void Mapping::reset() noexcept {
  if (address_ != nullptr) ::munmap(std::exchange(address_, nullptr), std::exchange(size_, 0));
}

}  // namespace sevisor
