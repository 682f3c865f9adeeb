// The guest's RAM as this process maps it: the raw view, where private pages are ciphertext.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "base/address.hpp"
#include "base/mapping.hpp"
#include "devices/guest_dma.hpp"
#include "vmm/memory_map.hpp"

namespace sevisor::vmm {

class GuestRam final : public devices::GuestDma {
 public:
  // Throws Error (kBadUsage) when the system has no room.
  explicit GuestRam(const MemoryMap& map);

  struct Region {
    Gpa base;
    Mapping memory;
  };
  [[nodiscard]] const std::vector<Region>& regions() const noexcept { return regions_; }

  [[nodiscard]] bool read(Gpa at, std::span<std::byte> to) override;
  [[nodiscard]] bool write(Gpa at, std::span<const std::byte> from) override;

 private:
  // The bytes [at, at + size) if one region holds them all, else empty.
  [[nodiscard]] std::span<std::byte> find(Gpa at, std::size_t size) const noexcept;

  std::vector<Region> regions_;
};

}  // namespace sevisor::vmm
