// Software TLB: a hit turns a linear address into a host pointer with one comparison and one addition.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace sevisor::emulator {

struct TlbEntry {
  // Page address the entry allows reads (writes) of, or kNoPage. An access of n bytes at `va` hits when
  // ((va + n - 1) & ~0xfff) equals the tag of entry index(va): one that crosses into the next page never does.
  std::uint64_t read_tag;
  std::uint64_t write_tag;
  std::uint64_t addend;     // host address = va + addend (modulo 2^64)
  bool global = false;      // survives a CR3 write
  std::uint8_t shift = 12;  // 12, 21, 22 or 30: size of the guest's page, of which this is one 4 KiB piece
};

class Tlb {
 public:
  static constexpr std::uint64_t kNoPage = ~std::uint64_t{0};
  static constexpr std::size_t kEntries = 1024;

  Tlb() noexcept { flush_all(); }
  [[nodiscard]] TlbEntry& at(std::uint64_t va) noexcept { return entries_[(va >> 12) & (kEntries - 1)]; }

  void flush_all() noexcept {
    for (TlbEntry& e : entries_) e.read_tag = e.write_tag = kNoPage;
  }
  void flush_non_global() noexcept {
    for (TlbEntry& e : entries_) {
      if (!e.global) e.read_tag = e.write_tag = kNoPage;
    }
  }
  // INVLPG: all pieces of the page that holds `va`. Outside 64-bit code a tag is base plus offset, which has a bit more
  // than the address.
  void flush_page(std::uint64_t va) noexcept {
    constexpr std::uint64_t kAddress = 0xffffffff;
    for (TlbEntry& e : entries_) {
      if (e.read_tag == kNoPage) continue;
      const bool sum = e.read_tag >> 33 == 0;
      const std::uint64_t difference = (e.read_tag ^ va) & (sum ? kAddress : ~std::uint64_t{0});
      if (difference >> e.shift == 0) e.read_tag = e.write_tag = kNoPage;
    }
  }
  // Entries that point into the host page.
  void flush_host_page(const std::byte* host_page) noexcept {
    for (TlbEntry& e : entries_) {
      if (points_to(e, host_page)) e.read_tag = e.write_tag = kNoPage;
    }
  }
  void deny_writes(const std::byte* host_page) noexcept {
    for (TlbEntry& e : entries_) {
      if (points_to(e, host_page)) e.write_tag = kNoPage;
    }
  }

 private:
  static bool points_to(const TlbEntry& e, const std::byte* host_page) noexcept {
    return e.read_tag != kNoPage && e.read_tag + e.addend == reinterpret_cast<std::uintptr_t>(host_page);
  }
  std::array<TlbEntry, kEntries> entries_{};
};

}  // namespace sevisor::emulator
