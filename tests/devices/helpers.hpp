// What the device tests share: a clock that is set by hand, guest memory that is a vector, accesses by value.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>
#include <vector>

#include "base/bytes.hpp"
#include "devices/bus.hpp"
#include "devices/clock.hpp"
#include "devices/guest_dma.hpp"
#include "devices/irq_line.hpp"

namespace sevisor::devices::test {

class ManualClock final : public Clock {
 public:
  std::uint64_t now_ns() override { return now; }
  std::uint64_t now = 0;
};

// RAM at [0, size).
class VectorMemory final : public GuestDma {
 public:
  explicit VectorMemory(std::size_t size) : bytes(size) {}
  bool read(Gpa at, std::span<std::byte> to) override {
    if (!fits(at, to.size())) return false;
    std::memcpy(to.data(), bytes.data() + at.value, to.size());
    return true;
  }
  bool write(Gpa at, std::span<const std::byte> from) override {
    if (!fits(at, from.size())) return false;
    std::memcpy(bytes.data() + at.value, from.data(), from.size());
    written += from.size();
    return true;
  }

  std::vector<std::byte> bytes;
  std::size_t written = 0;

 private:
  [[nodiscard]] bool fits(Gpa at, std::size_t size) const {
    return at.value <= bytes.size() && size <= bytes.size() - at.value;
  }
};

struct IrqProbe {
  bool level = false;
  unsigned rises = 0;
  [[nodiscard]] IrqLine line() {
    return [this](bool now) {
      if (now && !level) ++rises;
      level = now;
    };
  }
};

template <class T = std::uint8_t>
[[nodiscard]] T in(Device& device, std::uint64_t offset) {
  std::byte bytes[sizeof(T)];
  device.read(offset, bytes);
  return load<T>(bytes);
}

template <class T>
void out(Device& device, std::uint64_t offset, T value) {
  std::byte bytes[sizeof(T)];
  store(bytes, value);
  device.write(offset, bytes);
}

inline void out8(Device& device, std::uint64_t offset, unsigned value) {
  out(device, offset, static_cast<std::uint8_t>(value));
}

[[nodiscard]] inline std::span<const std::byte> bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text));
}

[[nodiscard]] inline std::vector<std::byte> to_vector(std::string_view text) {
  const auto bytes = bytes_of(text);
  return {bytes.begin(), bytes.end()};
}

[[nodiscard]] inline std::vector<std::byte> from_hex(std::initializer_list<unsigned> values) {
  std::vector<std::byte> bytes;
  for (const unsigned value : values) bytes.push_back(static_cast<std::byte>(value));
  return bytes;
}

}  // namespace sevisor::devices::test
