#include "emulator/kvm/coalesced_ring.hpp"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <climits>
#include <cstring>
#include <sys/mman.h>

#include "base/bytes.hpp"
#include "base/error.hpp"

namespace sevisor::emulator {

namespace {

constexpr std::size_t kMaxBusDevices = 1000;  // NR_IOBUS_DEVS, of the kernel's own and the zones
constexpr std::size_t kRingEntries = (kPageSize - sizeof(kvm_coalesced_mmio_ring)) / sizeof(kvm_coalesced_mmio);

[[noreturn]] void refuse(int error_number) {
  throw Error(ExitCode::kBadUsage, "map the ring of coalesced writes", errno_text(error_number));
}

Mapping shared_page() {
  void* page = ::mmap(nullptr, kPageSize, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (page == MAP_FAILED) refuse(errno);
  return {page, kPageSize};
}

bool holds(const kvm_coalesced_mmio_zone& zone, std::uint64_t address, std::uint64_t size) {
  return size <= INT_MAX && address + size >= address && address >= zone.addr &&
         address + size <= zone.addr + zone.size;
}

}  // namespace

CoalescedRing::CoalescedRing() : page_(shared_page()) {}

void CoalescedRing::show_at(std::byte* at) const {
  // Of a shared mapping, an old size of 0 makes a second one (mremap(2)).
  if (::mremap(page_.data(), 0, kPageSize, MREMAP_MAYMOVE | MREMAP_FIXED, at) == MAP_FAILED) refuse(errno);
}

int CoalescedRing::add(const kvm_coalesced_mmio_zone& zone, std::size_t devices) {
  if (zone.pio > 1) return -EINVAL;
  const auto same_bus = std::ranges::count_if(zones_, [&](const auto& z) { return z.pio == zone.pio; });
  if (static_cast<std::size_t>(same_bus) + devices >= kMaxBusDevices) return -ENOSPC;
  zones_.push_back(zone);
  return 0;
}

int CoalescedRing::remove(const kvm_coalesced_mmio_zone& zone) {
  if (zone.pio > 1) return -EINVAL;
  std::erase_if(zones_, [&](const auto& z) { return z.pio == zone.pio && holds(z, zone.addr, zone.size); });
  return 0;
}

bool CoalescedRing::write(IoBus bus, std::uint64_t address, std::span<const std::byte> data) {
  const std::uint32_t pio = bus == IoBus::kPort ? 1 : 0;
  const auto in_zone = [&](const auto& z) { return z.pio == pio && holds(z, address, data.size()); };
  if (std::ranges::none_of(zones_, in_zone)) return false;
  // User space writes both indices' page.
  const std::uint32_t last = std::atomic_ref(ring().last).load(std::memory_order_relaxed);
  const std::uint32_t first = std::atomic_ref(ring().first).load(std::memory_order_acquire);
  if (last >= kRingEntries || (last + 1) % kRingEntries == first) return false;
  kvm_coalesced_mmio entry{};
  entry.phys_addr = address;
  entry.len = static_cast<std::uint32_t>(data.size());
  entry.pio = pio;
  std::memcpy(entry.data, data.data(), data.size());
  store(page_.data() + sizeof(kvm_coalesced_mmio_ring) + last * sizeof entry, entry);
  std::atomic_ref(ring().last).store((last + 1) % kRingEntries, std::memory_order_release);
  return true;
}

}  // namespace sevisor::emulator
