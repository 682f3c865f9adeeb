#include "base/mapping.hpp"

#include <bit>
#include <cerrno>
#include <cstdint>
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

Mapping Mapping::huge_pages(std::size_t size, int protection, std::size_t page_size) {
  const int log_of_page = std::countr_zero(page_size) << MAP_HUGE_SHIFT;
  void* address = ::mmap(nullptr, size, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | log_of_page, -1, 0);
  if (address == MAP_FAILED) {
    throw Error(ExitCode::kBadUsage,
                fmt::format("map {} MiB of memory in huge pages of {} MiB", size >> 20, page_size >> 20),
                errno_text(errno),
                fmt::format("Reserve them: echo {} | sudo tee /sys/kernel/mm/hugepages/hugepages-{}kB/nr_hugepages",
                            size / page_size, page_size >> 10));
  }
  return {address, size};
}

Mapping Mapping::aligned(std::size_t size, int protection, std::size_t alignment) {
  if (size > SIZE_MAX - alignment) return anonymous(size, protection);  // which says that there is no room
  Mapping larger = anonymous(size + alignment, protection);
  auto* const begin = static_cast<std::byte*>(std::exchange(larger.address_, nullptr));
  const std::size_t before = (alignment - reinterpret_cast<std::uintptr_t>(begin) % alignment) % alignment;
  if (before != 0) ::munmap(begin, before);
  if (before != alignment) ::munmap(begin + before + size, alignment - before);
  return {begin + before, size};
}

void Mapping::reset() noexcept {
  if (address_ != nullptr) ::munmap(std::exchange(address_, nullptr), std::exchange(size_, 0));
}

}  // namespace sevisor
