#include "firmware/paging.hpp"

#include "base/bytes.hpp"
#include "firmware/cpu.hpp"
#include "firmware/layout.h"

namespace sevisor::firmware {

namespace {
constexpr std::uint64_t kPresent = 1;
constexpr std::uint64_t kSmallPage = 0x1000;
constexpr std::uint64_t kLargePage = 0x200000;
constexpr std::uint64_t kHugePage = 0x40000000;
constexpr std::uint64_t kMostBytes = 512 * kHugePage;  // what one page of pointers maps
constexpr std::uint64_t kTable = 0x3;                  // present, writable
constexpr std::uint64_t kLeaf = 0x83;                  // and a page of its level's size
constexpr std::uint32_t kExtendedFeatures = 0x80000001;
constexpr std::uint32_t kHugePages = 1 << 26;  // EDX, Page1GB
constexpr std::uint64_t kAddressMask = 0x000ffffffffff000;

// The leaf entry of an address below 4 GiB. The four page directories lie one behind the other, so they are one array.
std::uint64_t& leaf(std::uint64_t address) noexcept {
  if (address < kLargePage) return reinterpret_cast<std::uint64_t*>(FW_PAGE_TABLES + 0x6000)[address / kSmallPage];
  return reinterpret_cast<std::uint64_t*>(FW_PAGE_TABLES + 0x2000)[address / kLargePage];
}
}  // namespace

Failure map_high_memory(MemoryMap& map, std::uint64_t c_bit_mask) noexcept {
  std::uint64_t end = 0;
  for (const MemoryRange& range : map.ranges()) {
    if (range.type == MemoryType::kRam) end = range.end;
  }
  if (end <= kMappedBytes) return Failure::kNone;
  const std::uint64_t last = align_up(end < kMostBytes ? end : kMostBytes, kHugePage) / kHugePage;
  auto* const pointers = reinterpret_cast<std::uint64_t*>(FW_PAGE_TABLES + 0x1000);
  if ((cpuid(kExtendedFeatures).edx & kHugePages) != 0) {
    for (std::uint64_t i = kMappedBytes / kHugePage; i < last; ++i) pointers[i] = i * kHugePage | kLeaf | c_bit_mask;
    return Failure::kNone;
  }
  const std::uint64_t size = (last - kMappedBytes / kHugePage) * kSmallPage;
  const auto place = map.find_top(size, kSmallPage, FW_HIGH_BEGIN, FW_LOW_LIMIT);
  if (!place || !map.set(*place, *place + size, MemoryType::kReserved)) return Failure::kNoMemory;
  auto* const directories = reinterpret_cast<std::uint64_t*>(*place);
  for (std::uint64_t i = 0; i < size / sizeof *directories; ++i) {
    directories[i] = (kMappedBytes + i * kLargePage) | kLeaf | c_bit_mask;
  }
  for (std::uint64_t i = 0; i < size / kSmallPage; ++i) {
    pointers[kMappedBytes / kHugePage + i] = (*place + i * kSmallPage) | kTable | c_bit_mask;
  }
  return Failure::kNone;
}

void share_pages(std::uint64_t begin, std::uint64_t end, std::uint64_t c_bit_mask) noexcept {
  while (begin < end) {
    leaf(begin) &= ~c_bit_mask;
    begin += begin < kLargePage ? kSmallPage : kLargePage;
  }
  flush_tlb();
}

ghcb::guest::Translation translate(std::uint64_t linear, std::uint64_t c_bit_mask) noexcept {
  if (linear >= kMappedBytes) return {};
  const std::uint64_t entry = leaf(linear);
  const std::uint64_t size = linear < kLargePage ? kSmallPage : kLargePage;
  const std::uint64_t frame = entry & kAddressMask & ~c_bit_mask & ~(size - 1);
  return {.mapped = (entry & kPresent) != 0, .shared = (entry & c_bit_mask) == 0, .gpa = frame | (linear & (size - 1))};
}

}  // namespace sevisor::firmware
