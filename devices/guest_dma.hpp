// Guest memory as a device reaches it: the raw view, without the guest's key.
#pragma once

#include <cstddef>
#include <span>

#include "base/address.hpp"

namespace sevisor::devices {

class GuestDma {
 public:
  virtual ~GuestDma() = default;
  // All of the bytes or failure (some may have been moved); false when any of them is not guest RAM. `at` and the size
  // come from the guest: the implementation checks both, wrap-around included.
  [[nodiscard]] virtual bool read(Gpa at, std::span<std::byte> to) = 0;
  [[nodiscard]] virtual bool write(Gpa at, std::span<const std::byte> from) = 0;

 protected:
  GuestDma() = default;
  GuestDma(const GuestDma&) = default;
  GuestDma& operator=(const GuestDma&) = default;
};

}  // namespace sevisor::devices
