// KVM_REGISTER_COALESCED_MMIO: writes to registers that have no effect at once are put into a ring, which user space
// empties when it has reason to. Linux virt/kvm/coalesced_mmio.c.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/mapping.hpp"
#include "emulator/kvm/io_eventfds.hpp"
#include "kvm/abi.hpp"

namespace sevisor::emulator {

// KVM_CAP_COALESCED_MMIO: the page of each vCPU's run area that shows the ring. A VM has one ring.
inline constexpr int kCoalescedRingPage = 2;

class CoalescedRing {
 public:
  CoalescedRing();

  // Has the page at `at` show the ring instead of what is mapped there. Throws Error when the system refuses.
  void show_at(std::byte* at) const;

  // 0 or a negative errno. `devices`: on the zone's bus, of the host's own.
  [[nodiscard]] int add(const kvm_coalesced_mmio_zone& zone, std::size_t devices);
  // Each zone that has all of `zone` in it goes.
  [[nodiscard]] int remove(const kvm_coalesced_mmio_zone& zone);
  // A write of 1 to 8 bytes. false: in no zone, or the ring is full.
  [[nodiscard]] bool write(IoBus bus, std::uint64_t address, std::span<const std::byte> data);

 private:
  [[nodiscard]] kvm_coalesced_mmio_ring& ring() const noexcept {
    return *reinterpret_cast<kvm_coalesced_mmio_ring*>(page_.data());
  }

  Mapping page_;
  std::vector<kvm_coalesced_mmio_zone> zones_;
};

}  // namespace sevisor::emulator
