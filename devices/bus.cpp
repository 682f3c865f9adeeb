#include "devices/bus.hpp"

#include <algorithm>
#include <cstring>
#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include "base/error.hpp"

namespace sevisor::devices {

namespace {
void fill_with_ones(std::span<std::byte> to) noexcept { std::ranges::fill(to, std::byte{0xff}); }

bool is_access_size(std::size_t size) noexcept { return size == 1 || size == 2 || size == 4 || size == 8; }
}  // namespace

void Device::read_string(std::uint64_t offset, std::size_t element, std::span<std::byte> to) {
  for (std::size_t at = 0; at < to.size(); at += element) read(offset, to.subspan(at, element));
}

void Device::write_string(std::uint64_t offset, std::size_t element, std::span<const std::byte> from) {
  for (std::size_t at = 0; at < from.size(); at += element) write(offset, from.subspan(at, element));
}

void Bus::add(std::uint64_t base, std::uint64_t length, Device& device, std::string device_name,
              std::uint64_t first_offset) {
  const std::string tried = fmt::format("put {} at {:#x}+{:#x} on the {} bus", device_name, base, length, name_);
  if (length == 0) throw Error(ExitCode::kCrash, tried, "the range is empty");
  if (base >= size_ || length > size_ - base) throw Error(ExitCode::kCrash, tried, "the range leaves the bus");

  const auto next = std::ranges::upper_bound(ranges_, base, {}, &Range::base);
  if (next != ranges_.end() && next->base - base < length) {
    throw Error(ExitCode::kCrash, tried, fmt::format("it overlaps {}", next->name));
  }
  if (next != ranges_.begin()) {
    const Range& before = *(next - 1);
    if (base - before.base < before.length)
      throw Error(ExitCode::kCrash, tried, fmt::format("it overlaps {}", before.name));
  }
  ranges_.insert(next, Range{base, length, first_offset, &device, std::move(device_name)});
}

void Bus::add_movable(MovableRange& range) {
  if (movable_ != nullptr) {
    throw Error(ExitCode::kCrash, fmt::format("put a movable range on the {} bus", name_), "there is one already");
  }
  movable_ = &range;
}

MovableRange* Bus::movable_for(std::uint64_t address, std::size_t size) const noexcept {
  if (movable_ == nullptr || !is_access_size(size) || address >= size_ || size > size_ - address) return nullptr;
  const auto next = std::ranges::upper_bound(ranges_, address, {}, &Range::base);
  if (next != ranges_.end() && next->base - address < size) return nullptr;
  if (next != ranges_.begin() && address - (next - 1)->base < (next - 1)->length) return nullptr;
  return movable_;
}

const Bus::Range* Bus::find(std::uint64_t address, std::size_t size) const noexcept {
  const auto next = std::ranges::upper_bound(ranges_, address, {}, &Range::base);
  if (next == ranges_.begin()) return nullptr;
  const Range& range = *(next - 1);
  const std::uint64_t offset = address - range.base;
  if (offset >= range.length || size > range.length - offset) return nullptr;
  return &range;
}

void Bus::trace_unclaimed(const char* what, std::uint64_t address, std::size_t size) const {
  SPDLOG_LOGGER_CALL(spdlog::default_logger_raw(), spdlog::level::trace,
                     "{} bus: nothing answers a {} of {} bytes at {:#x}", name_, what, size, address);
}

bool Bus::read(std::uint64_t address, std::span<std::byte> to) const {
  const Range* range = is_access_size(to.size()) ? find(address, to.size()) : nullptr;
  if (range == nullptr) {
    MovableRange* movable = movable_for(address, to.size());
    if (movable != nullptr && movable->read_at(address, to)) return true;
    trace_unclaimed("read", address, to.size());
    fill_with_ones(to);
    return false;
  }
  range->device->read(address - range->base + range->first_offset, to);
  return true;
}

bool Bus::write(std::uint64_t address, std::span<const std::byte> from) const {
  const Range* range = is_access_size(from.size()) ? find(address, from.size()) : nullptr;
  if (range == nullptr) {
    MovableRange* movable = movable_for(address, from.size());
    if (movable != nullptr && movable->write_at(address, from)) return true;
    trace_unclaimed("write", address, from.size());
    return false;
  }
  range->device->write(address - range->base + range->first_offset, from);
  return true;
}

bool Bus::read_string(std::uint64_t address, std::size_t element, std::span<std::byte> to) const {
  const Range* range = is_access_size(element) ? find(address, element) : nullptr;
  if (range == nullptr) {
    trace_unclaimed("string read", address, to.size());
    fill_with_ones(to);
    return false;
  }
  const std::size_t whole = to.size() - to.size() % element;
  range->device->read_string(address - range->base + range->first_offset, element, to.first(whole));
  fill_with_ones(to.subspan(whole));
  return true;
}

bool Bus::write_string(std::uint64_t address, std::size_t element, std::span<const std::byte> from) const {
  const Range* range = is_access_size(element) ? find(address, element) : nullptr;
  if (range == nullptr) {
    trace_unclaimed("string write", address, from.size());
    return false;
  }
  const std::size_t whole = from.size() - from.size() % element;
  range->device->write_string(address - range->base + range->first_offset, element, from.first(whole));
  return true;
}

}  // namespace sevisor::devices
