#include "emulator/memory/dirty_log.hpp"

#include <algorithm>
#include <bit>

namespace sevisor::emulator {

DirtyLog::DirtyLog(std::uint64_t pages, bool full)
    : pages_(pages), words_((pages + kPagesPerWord - 1) / kPagesPerWord, full ? ~std::uint64_t{0} : 0) {
  if (full && pages % kPagesPerWord != 0) words_.back() = (std::uint64_t{1} << pages % kPagesPerWord) - 1;
}

std::vector<std::uint64_t> DirtyLog::clear(std::uint64_t first, std::span<const std::uint64_t> mask) {
  std::vector<std::uint64_t> cleared;
  const std::size_t begin = first / kPagesPerWord;
  for (std::size_t i = 0; i < mask.size() && begin + i < words_.size(); ++i) {
    std::uint64_t& word = words_[begin + i];
    for (std::uint64_t bits = word & mask[i]; bits != 0; bits &= bits - 1) {
      cleared.push_back((begin + i) * kPagesPerWord + static_cast<unsigned>(std::countr_zero(bits)));
    }
    word &= ~mask[i];
  }
  return cleared;
}

}  // namespace sevisor::emulator
