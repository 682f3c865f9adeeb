#include "emulator/kvm/io_eventfds.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

namespace sevisor::emulator {

namespace {

// KVM_IOEVENTFD_VALID_FLAG_MASK, with the flags of other architectures and one of the kernel's own (fast MMIO).
constexpr std::uint32_t kKnownFlags = 0x1f;

IoBus bus_of(std::uint32_t flags) {
  if ((flags & KVM_IOEVENTFD_FLAG_PIO) != 0) return IoBus::kPort;
  return (flags & KVM_IOEVENTFD_FLAG_VIRTIO_CCW_NOTIFY) != 0 ? IoBus::kOther : IoBus::kMmio;
}

bool length_valid(std::uint32_t length) { return length <= 8 && (length & (length - 1)) == 0; }

}  // namespace

bool IoEventfds::Entry::collides(const Entry& other) const {
  if (bus != other.bus || address != other.address) return false;
  if (length == 0 || other.length == 0) return true;
  return length == other.length && (!value || !other.value || value == other.value);
}

bool IoEventfds::Entry::takes(IoBus on, std::uint64_t at, std::span<const std::byte> data) const {
  if (bus != on || address != at) return false;
  if (length == 0) return true;
  if (data.size() != length) return false;
  if (!value) return true;
  std::uint64_t written = 0;
  std::memcpy(&written, data.data(), data.size());
  return written == *value;
}

int IoEventfds::request(const kvm_ioeventfd& request) {
  const bool remove_it = (request.flags & KVM_IOEVENTFD_FLAG_DEASSIGN) != 0;
  const bool matches = (request.flags & KVM_IOEVENTFD_FLAG_DATAMATCH) != 0;
  if (!remove_it) {
    if (!length_valid(request.len) || request.addr + request.len < request.addr) return -EINVAL;
    if ((request.flags & ~kKnownFlags) != 0 || (request.len == 0 && matches)) return -EINVAL;
  }
  Entry entry{.bus = bus_of(request.flags), .address = request.addr, .length = request.len, .value = {}, .event = {}};
  if (matches) entry.value = request.datamatch;
  if (const int error = entry.event.open(request.fd); error != 0) return error;
  return remove_it ? remove(entry) : assign(std::move(entry));
}

int IoEventfds::assign(Entry entry) {
  if (std::ranges::any_of(entries_, [&](const Entry& e) { return e.collides(entry); })) return -EEXIST;
  entries_.push_back(std::move(entry));
  return 0;
}

int IoEventfds::remove(const Entry& entry) {
  const auto found = std::ranges::find_if(entries_, [&](const Entry& e) {
    return e.bus == entry.bus && e.address == entry.address && e.length == entry.length && e.value == entry.value &&
           e.event == entry.event;
  });
  if (found == entries_.end()) return -ENOENT;
  entries_.erase(found);
  return 0;
}

bool IoEventfds::write(IoBus bus, std::uint64_t address, std::span<const std::byte> data) const {
  const auto found = std::ranges::find_if(entries_, [&](const Entry& e) { return e.takes(bus, address, data); });
  if (found == entries_.end()) return false;
  found->event.signal();
  return true;
}

}  // namespace sevisor::emulator
