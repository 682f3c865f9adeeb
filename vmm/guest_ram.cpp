#include "vmm/guest_ram.hpp"

#include <cstring>
#include <sys/mman.h>

namespace sevisor::vmm {

GuestRam::GuestRam(const MemoryMap& map) {
  for (const RamRange& range : map.ram) {
    regions_.push_back({range.base, Mapping::anonymous(range.size, PROT_READ | PROT_WRITE)});
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
