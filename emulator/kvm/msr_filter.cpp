#include "emulator/kvm/msr_filter.hpp"

#include <algorithm>
#include <cerrno>
#include <utility>

#include "base/bytes.hpp"
#include "emulator/irqchip/local_apic.hpp"
#include "emulator/kvm/user_memory.hpp"

namespace sevisor::emulator {

namespace {
constexpr std::uint32_t kKnownFlags = KVM_MSR_FILTER_DEFAULT_DENY;
constexpr std::uint32_t kKnownRangeFlags = KVM_MSR_FILTER_READ | KVM_MSR_FILTER_WRITE;
constexpr std::size_t kMaxBitmap = 0x600;  // KVM_MSR_FILTER_MAX_BITMAP_SIZE, bytes
}  // namespace

int MsrFilter::set(const kvm_msr_filter& filter) {
  if ((filter.flags & ~kKnownFlags) != 0) return -EINVAL;
  const bool default_allow = (filter.flags & KVM_MSR_FILTER_DEFAULT_DENY) == 0;
  if (!default_allow && std::ranges::all_of(filter.ranges, [](const auto& r) { return r.nmsrs == 0; })) return -EINVAL;
  std::vector<Range> ranges;
  for (const kvm_msr_filter_range& range : filter.ranges) {
    if (range.nmsrs == 0) continue;
    if (range.flags == 0 || (range.flags & ~kKnownRangeFlags) != 0) return -EINVAL;
    const auto size = static_cast<std::size_t>(align_up((std::uint64_t{range.nmsrs} + 7) / 8, sizeof(long)));
    if (size > kMaxBitmap) return -EINVAL;
    std::vector<std::byte> allowed(size);
    if (!copy_from_user(allowed, range.bitmap)) return -EFAULT;
    ranges.push_back({.flags = range.flags, .first = range.base, .count = range.nmsrs, .allowed = std::move(allowed)});
  }
  default_allow_ = default_allow;
  ranges_ = std::move(ranges);
  return 0;
}

bool MsrFilter::allows(std::uint32_t index, bool write) const noexcept {
  // KVM does not filter an x2APIC.
  if (index >= kMsrX2apicFirst && index <= kMsrX2apicLast) return true;
  const std::uint32_t kind = write ? KVM_MSR_FILTER_WRITE : KVM_MSR_FILTER_READ;
  const auto range = std::ranges::find_if(
      ranges_, [&](const Range& r) { return (r.flags & kind) != 0 && index >= r.first && index - r.first < r.count; });
  if (range == ranges_.end()) return default_allow_;
  const std::uint32_t bit = index - range->first;
  return (std::to_integer<unsigned>(range->allowed[bit / 8]) >> bit % 8 & 1) != 0;
}

}  // namespace sevisor::emulator
