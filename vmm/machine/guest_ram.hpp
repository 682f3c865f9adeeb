// The guest's RAM as this process maps it: the raw view, where private pages are ciphertext.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/address.hpp"
#include "base/mapping.hpp"
#include "devices/guest_dma.hpp"
#include "vmm/machine/memory_map.hpp"

namespace sevisor::vmm {

enum class HugePages : std::uint8_t {
  kOff,          // as the system has it
  kTransparent,  // the system is asked for them
  k2M,           // reserved ones; the memory's size must be a multiple
  k1G,
};

class GuestRam final : public devices::GuestDma {
 public:
  // Throws Error (kBadUsage) when the system has no room.
  explicit GuestRam(const MemoryMap& map, HugePages pages = HugePages::kOff);

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
