// The 256 bytes of configuration space of one PCI function that has no BARs: values, and which of their bits can be
// written (PCI Local Bus 3.0, 6.1).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "base/bytes.hpp"

namespace sevisor::devices {

class PciFunction {
 public:
  static constexpr std::size_t kSize = 256;

  struct Identity {
    std::uint16_t vendor = 0;
    std::uint16_t device = 0;
    std::uint8_t revision = 0;
    std::uint16_t class_code = 0;  // base class and subclass
    std::uint16_t subsystem_vendor = 0;
    std::uint16_t subsystem = 0;
  };
  explicit PciFunction(const Identity& identity) noexcept;

  // The register at `offset` starts as `value`; of its bits those in `writable` take what is written.
  template <class T>
  void define(std::size_t offset, T value, T writable) noexcept {
    store(&values_[offset], value);
    store(&writable_[offset], writable);
  }

  template <class T>
  [[nodiscard]] T get(std::size_t offset) const noexcept {
    return load<T>(&values_[offset]);
  }

  // Changes the value, whatever of it can be written.
  template <class T>
  void set(std::size_t offset, T value) noexcept {
    store(&values_[offset], value);
  }

  // [at, at + size) must lie in the configuration space.
  void read(std::size_t at, std::span<std::byte> to) const noexcept;
  void write(std::size_t at, std::span<const std::byte> from) noexcept;

 private:
  std::array<std::byte, kSize> values_{};
  std::array<std::byte, kSize> writable_{};
};

}  // namespace sevisor::devices
