// Which pages of a memory slot have been written to since somebody last asked: KVM_MEM_LOG_DIRTY_PAGES.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace sevisor::emulator {

class DirtyLog {
 public:
  static constexpr std::uint64_t kPagesPerWord = 64;

  // `full`: each page counts as written (KVM_DIRTY_LOG_INITIALLY_SET).
  DirtyLog(std::uint64_t pages, bool full);

  [[nodiscard]] std::uint64_t pages() const noexcept { return pages_; }
  [[nodiscard]] bool written(std::uint64_t page) const noexcept {
    return (words_[page / kPagesPerWord] >> page % kPagesPerWord & 1) != 0;
  }
  void mark(std::uint64_t page) noexcept { words_[page / kPagesPerWord] |= std::uint64_t{1} << page % kPagesPerWord; }
  // One bit a page, the first one's the lowest of the first word.
  [[nodiscard]] std::span<const std::uint64_t> words() const noexcept { return words_; }
  // Forgets the pages that are set in `mask`, whose first bit is page `first`, a multiple of 64. Those that were
  // marked.
  std::vector<std::uint64_t> clear(std::uint64_t first, std::span<const std::uint64_t> mask);

 private:
  std::uint64_t pages_;
  std::vector<std::uint64_t> words_;
};

}  // namespace sevisor::emulator
