#include "vmm/machine/guest_ram.hpp"

#include <cerrno>
#include <cstring>
#include <fmt/format.h>
#include <sys/mman.h>
#include <utility>

#include "base/error.hpp"
#include "vmm/text/size_text.hpp"

namespace sevisor::vmm {

namespace {

constexpr std::uint64_t kLargePage = 2 << 20;  // bytes
constexpr std::uint64_t kGiantPage = 1 << 30;
constexpr int kAccess = PROT_READ | PROT_WRITE;

Mapping reserved(const RamRange& range, std::uint64_t page) {
  if (range.size % page != 0) {
    throw Error(ExitCode::kBadUsage, fmt::format("use huge pages of {}", size_text(page)),
                fmt::format("{} of memory at {:#x} is no multiple", size_text(range.size), range.base.value),
                "Choose another --memory.");
  }
  return Mapping::huge_pages(range.size, kAccess, page);
}

Mapping map_range(const RamRange& range, HugePages pages) {
  if (pages == HugePages::k2M) return reserved(range, kLargePage);
  if (pages == HugePages::k1G) return reserved(range, kGiantPage);
  // Addresses of guest and process agree within a large page, so that the nested page tables may have large ones.
  Mapping memory = Mapping::aligned(range.size, kAccess, kLargePage);
  if (pages == HugePages::kTransparent && ::madvise(memory.data(), memory.size(), MADV_HUGEPAGE) != 0) {
    throw Error(ExitCode::kBadUsage, "ask for transparent huge pages", errno_text(errno),
                "This kernel has none; leave out --hugepages.");
  }
  return memory;
}

}  // namespace

GuestRam::GuestRam(const MemoryMap& map, HugePages pages) {
  for (const RamRange& range : map.ram) {
    Mapping memory = map_range(range, pages);
    // A child process must not share it: pinned pages would be copied for it.
    (void)::madvise(memory.data(), memory.size(), MADV_DONTFORK);
    regions_.push_back({range.base, std::move(memory)});
  }
}

std::span<std::byte> GuestRam::find(Gpa at, std::size_t size) const noexcept {
  for (const Region& region : regions_) {
    if (at < region.base) continue;
    const std::uint64_t offset = at - region.base;
    if (offset <= region.memory.size() && size <= region.memory.size() - offset) {
      return region.memory.bytes().subspan(offset, size);
    }
  }
  return {};
}

bool GuestRam::read(Gpa at, std::span<std::byte> to) {
  if (to.empty()) return true;
  const std::span<std::byte> found = find(at, to.size());
  if (found.empty()) return false;
  std::memcpy(to.data(), found.data(), to.size());
  return true;
}

bool GuestRam::write(Gpa at, std::span<const std::byte> from) {
  if (from.empty()) return true;
  const std::span<std::byte> found = find(at, from.size());
  if (found.empty()) return false;
  std::memcpy(found.data(), from.data(), from.size());
  return true;
}

}  // namespace sevisor::vmm
