#include "firmware/ap_memory.hpp"

#include "base/bytes.hpp"
#include "firmware/layout.h"

namespace sevisor::firmware {

namespace {
constexpr std::uint64_t kLargePage = 0x200000;
constexpr std::uint64_t kEntries = kPageSize / 8;
constexpr std::uint64_t kTable = 0x3;       // present, writable
constexpr std::uint64_t kSmallLeaf = 0x3;   // the same
constexpr std::uint64_t kLargeLeaf = 0x83;  // and a page of its level's size
constexpr std::uint64_t kDirectories = 4;   // of 1 GiB each

std::uint64_t* table_at(std::uint64_t address) noexcept { return reinterpret_cast<std::uint64_t*>(address); }
}  // namespace

std::optional<ApMemory> make_ap_memory(MemoryMap& map, std::uint32_t count, std::uint64_t c_bit_mask) noexcept {
  // From the begin on: PML4, pointers, directories, one table of 4 KiB pages for each 2 MiB of this memory, stacks,
  // GHCBs.
  const std::uint64_t stack_bytes = align_up(std::uint64_t{count} * FW_AP_STACK_SIZE, kPageSize);
  const std::uint64_t ghcb_bytes = std::uint64_t{count} * kPageSize;
  const std::uint64_t fixed = (2 + kDirectories) * kPageSize + stack_bytes + ghcb_bytes;
  const std::uint64_t blocks = align_up(fixed + fixed / kEntries + kPageSize, kLargePage) / kLargePage;
  const std::uint64_t size = fixed + blocks * kPageSize;
  const auto begin = map.find_top(size, kLargePage, FW_HIGH_BEGIN, FW_LOW_LIMIT);
  if (!begin || !map.set(*begin, *begin + size, MemoryType::kReserved)) return std::nullopt;

  const std::uint64_t pointers = *begin + kPageSize;
  const std::uint64_t directories = pointers + kPageSize;
  const std::uint64_t tables = directories + kDirectories * kPageSize;
  const std::uint64_t stacks = tables + blocks * kPageSize;
  const std::uint64_t ghcbs = stacks + stack_bytes;
  __builtin_memset(table_at(*begin), 0, stacks - *begin);
  *table_at(*begin) = pointers | kTable | c_bit_mask;
  for (std::uint64_t i = 0; i < kDirectories; ++i) {
    table_at(pointers)[i] = (directories + i * kPageSize) | kTable | c_bit_mask;
  }
  for (const std::uint64_t page : {std::uint64_t{FW_AP_JUMP_TABLE}, std::uint64_t{FW_HOLD_PAGE}}) {
    table_at(directories)[page / kLargePage] = align_down(page, kLargePage) | kLargeLeaf | c_bit_mask;
  }
  for (std::uint64_t block = 0; block < blocks; ++block) {
    table_at(directories)[*begin / kLargePage + block] = (tables + block * kPageSize) | kTable | c_bit_mask;
  }
  for (std::uint64_t page = *begin; page < *begin + size; page += kPageSize) {
    table_at(tables)[(page - *begin) / kPageSize] = page | kSmallLeaf | (page >= ghcbs ? 0 : c_bit_mask);
  }
  return ApMemory{static_cast<std::uint32_t>(*begin), static_cast<std::uint32_t>(stacks),
                  static_cast<std::uint32_t>(ghcbs)};
}

}  // namespace sevisor::firmware
