#include "firmware/paging.hpp"

#include "firmware/cpu.hpp"
#include "firmware/layout.h"

namespace sevisor::firmware {

namespace {
constexpr std::uint64_t kPresent = 1;
constexpr std::uint64_t kSmallPage = 0x1000;
constexpr std::uint64_t kLargePage = 0x200000;
constexpr std::uint64_t kAddressMask = 0x000ffffffffff000;

// The leaf entry of an address below 4 GiB. The four page directories lie one behind the other, so they are one array.
std::uint64_t& leaf(std::uint64_t address) noexcept {
  if (address < kLargePage) return reinterpret_cast<std::uint64_t*>(FW_PAGE_TABLES + 0x6000)[address / kSmallPage];
  return reinterpret_cast<std::uint64_t*>(FW_PAGE_TABLES + 0x2000)[address / kLargePage];
}
}  // namespace

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
