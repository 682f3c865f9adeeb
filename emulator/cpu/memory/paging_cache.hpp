// What page walks have found, so that most of them read one entry: as the paging-structure caches of a processor.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace sevisor::emulator {

// Entries are good while `generation` equals Core::generation, which every TLB flush, INVLPG and closed page changes.
struct PagingCache {
  // A page of page-table entries.
  struct TablePage {
    std::uint64_t generation = 0;
    std::uint64_t gpa = 0;
    std::byte* host = nullptr;
    std::uint8_t* flags = nullptr;
    bool read_only = false;
  };
  // The table of 4 KiB pages that maps 2 MiB of linear addresses, and what the levels above it allow.
  struct Region {
    std::uint64_t generation = 0;
    std::uint64_t number = 0;  // linear address >> 21
    TablePage table;
    std::uint8_t rights = 0;
  };

  static constexpr std::size_t kTablePages = 64;
  static constexpr std::size_t kRegions = 256;
  std::array<TablePage, kTablePages> pages{};
  std::array<Region, kRegions> regions{};
};

}  // namespace sevisor::emulator
