// Takes values off a fuzzer's input, front to back; past its end come zeros.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

namespace sevisor::fuzz {

class Input {
 public:
  Input(const std::uint8_t* data, std::size_t size) : rest_(reinterpret_cast<const std::byte*>(data), size) {}

  [[nodiscard]] bool empty() const noexcept { return rest_.empty(); }

  template <class T>
  [[nodiscard]] T take() noexcept {
    T value{};
    std::memcpy(&value, rest_.data(), std::min(sizeof(T), rest_.size()));
    rest_ = rest_.subspan(std::min(sizeof(T), rest_.size()));
    return value;
  }

  // At most `size` bytes.
  [[nodiscard]] std::span<const std::byte> bytes(std::size_t size) noexcept {
    const std::span<const std::byte> taken = rest_.first(std::min(size, rest_.size()));
    rest_ = rest_.subspan(taken.size());
    return taken;
  }

 private:
  std::span<const std::byte> rest_;
};

}  // namespace sevisor::fuzz
