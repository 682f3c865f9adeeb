#include "vmm/machine/memory_map.hpp"

#include <algorithm>
#include <fmt/format.h>

#include "base/bytes.hpp"
#include "base/error.hpp"
#include "vmm/text/size_text.hpp"

namespace sevisor::vmm {

std::uint64_t MemoryMap::low_size() const noexcept { return ram.empty() ? 0 : ram.front().size; }
std::uint64_t MemoryMap::high_size() const noexcept { return ram.size() < 2 ? 0 : ram[1].size; }

MemoryMap make_memory_map(std::uint64_t memory) {
  const auto refuse = [memory](std::string came_back) {
    throw Error(ExitCode::kBadUsage, fmt::format("give the guest {} of memory", size_text(memory)),
                std::move(came_back), "Choose another --memory, such as 512M.");
  };
  if (memory < kMinMemory) refuse(fmt::format("the least is {}", size_text(kMinMemory)));
  if (memory > kMaxMemory) refuse(fmt::format("the most is {}", size_text(kMaxMemory)));
  if (memory % kPageSize != 0) refuse(fmt::format("it is not a multiple of {}", size_text(kPageSize)));
  MemoryMap map;
  map.ram.push_back({Gpa(0), std::min(memory, kLowRamEnd)});
  if (memory > kLowRamEnd) map.ram.push_back({Gpa(kHighRamBase), memory - kLowRamEnd});
  return map;
}

}  // namespace sevisor::vmm
