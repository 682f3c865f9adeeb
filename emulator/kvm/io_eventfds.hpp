// KVM_IOEVENTFD: addresses whose writes signal an eventfd and go no further. Linux virt/kvm/eventfd.c.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "emulator/kvm/event_descriptor.hpp"
#include "kvm/abi.hpp"

namespace sevisor::emulator {

enum class IoBus : std::uint8_t { kMmio, kPort, kOther };  // kOther: of machines that are not PCs

class IoEventfds {
 public:
  // 0 or a negative errno, with KVM_IOEVENTFD_FLAG_DEASSIGN as without.
  [[nodiscard]] int request(const kvm_ioeventfd& request);
  // A write of 1 to 8 bytes. true: it signalled an eventfd, and nobody else sees it.
  [[nodiscard]] bool write(IoBus bus, std::uint64_t address, std::span<const std::byte> data) const;

 private:
  struct Entry {
    IoBus bus = IoBus::kMmio;
    std::uint64_t address = 0;
    std::uint32_t length = 0;            // 0: any
    std::optional<std::uint64_t> value;  // that has to be written; none: any
    EventDescriptor event;
    [[nodiscard]] bool collides(const Entry& other) const;
    [[nodiscard]] bool takes(IoBus on, std::uint64_t at, std::span<const std::byte> data) const;
  };

  int assign(Entry entry);
  int remove(const Entry& entry);

  std::vector<Entry> entries_;
};

}  // namespace sevisor::emulator
