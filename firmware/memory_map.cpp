#include "firmware/memory_map.hpp"

#include "base/bytes.hpp"

namespace sevisor::firmware {

namespace {
constexpr std::size_t kE820EntryBytes = 20;

// A list under construction that merges neighbours.
struct Builder {
  std::array<MemoryRange, MemoryMap::kCapacity> ranges;
  std::size_t count = 0;
  bool overflow = false;

  void add(const MemoryRange& range) noexcept {
    if (range.begin >= range.end) return;
    if (count != 0 && ranges[count - 1].end == range.begin && ranges[count - 1].type == range.type) {
      ranges[count - 1].end = range.end;
      return;
    }
    if (count == ranges.size()) {
      overflow = true;
      return;
    }
    ranges[count++] = range;
  }
};
}  // namespace

bool MemoryMap::set(std::uint64_t begin, std::uint64_t end, MemoryType type) noexcept {
  if (begin >= end) return true;
  const MemoryRange added{begin, end, type};
  Builder next;
  bool placed = false;
  for (const MemoryRange& range : ranges()) {
    if (!placed && range.end > begin) {
      next.add({range.begin, range.begin < begin ? begin : range.begin, range.type});
      next.add(added);
      placed = true;
    }
    if (range.end <= begin) {
      next.add(range);
    } else if (range.end > end) {
      next.add({range.begin > end ? range.begin : end, range.end, range.type});
    }
  }
  if (!placed) next.add(added);
  if (next.overflow) return false;
  for (std::size_t i = 0; i < next.count; ++i) ranges_[i] = next.ranges[i];
  count_ = next.count;
  return true;
}

Failure MemoryMap::add_e820(std::span<const std::byte> table) noexcept {
  if (table.empty() || table.size() % kE820EntryBytes != 0) return Failure::kMemoryMap;
  for (const bool ram : {true, false}) {
    for (std::size_t at = 0; at < table.size(); at += kE820EntryBytes) {
      const auto base = load<std::uint64_t>(table.data() + at);
      const auto length = load<std::uint64_t>(table.data() + at + 8);
      const auto type = load<std::uint32_t>(table.data() + at + 16);
      if (base + length < base) return Failure::kMemoryMap;
      // Types that ACPI does not define are reserved memory (same section).
      const MemoryType known = type >= 1 && type <= 5 ? static_cast<MemoryType>(type) : MemoryType::kReserved;
      if ((known == MemoryType::kRam) != ram) continue;
      if (!set(base, base + length, known)) return Failure::kMemoryMap;
    }
  }
  return Failure::kNone;
}

std::optional<std::uint64_t> MemoryMap::find_top(std::uint64_t size, std::uint64_t alignment, std::uint64_t low,
                                                 std::uint64_t high) const noexcept {
  for (std::size_t i = count_; i-- > 0;) {
    const MemoryRange& range = ranges_[i];
    if (range.type != MemoryType::kRam) continue;
    const std::uint64_t begin = range.begin > low ? range.begin : low;
    const std::uint64_t end = range.end < high ? range.end : high;
    if (begin >= end || end - begin < size) continue;
    const std::uint64_t place = align_down(end - size, alignment);
    if (place >= begin) return place;
  }
  return std::nullopt;
}

std::optional<std::uint64_t> MemoryMap::find_bottom(std::uint64_t size, std::uint64_t alignment, std::uint64_t low,
                                                    std::uint64_t high) const noexcept {
  for (const MemoryRange& range : ranges()) {
    if (range.type != MemoryType::kRam) continue;
    const std::uint64_t begin = range.begin > low ? range.begin : low;
    const std::uint64_t end = range.end < high ? range.end : high;
    const std::uint64_t place = align_up(begin, alignment);
    if (place >= begin && place < end && end - place >= size) return place;
  }
  return std::nullopt;
}

bool MemoryMap::is_ram(std::uint64_t begin, std::uint64_t end) const noexcept {
  for (const MemoryRange& range : ranges()) {
    if (range.type == MemoryType::kRam && range.begin <= begin && end <= range.end) return begin < end;
  }
  return false;
}

}  // namespace sevisor::firmware
