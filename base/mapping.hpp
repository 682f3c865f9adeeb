// An owned memory mapping.
#pragma once

#include <cstddef>
#include <span>
#include <utility>

namespace sevisor {

class Mapping {
 public:
  Mapping() noexcept = default;
  // Anonymous zero pages, private to this process, not reserved in advance. `size` in bytes, a multiple of the page
  // size, not 0. `protection` as for mmap(2). Throws Error (kBadUsage) when the system has no room.
  static Mapping anonymous(std::size_t size, int protection);
  // The same in pages of `page_size` bytes, a power of two, of which the system has reserved some; `size` is a multiple
  // of it. Throws Error (kBadUsage) when it has not enough of them.
  static Mapping huge_pages(std::size_t size, int protection, std::size_t page_size);
  // As anonymous(), at an address that is a multiple of `alignment`, a power of two.
  static Mapping aligned(std::size_t size, int protection, std::size_t alignment);
  // Takes over what mmap(2) returned.
  Mapping(void* address, std::size_t size) noexcept : address_(address), size_(size) {}

  Mapping(Mapping&& other) noexcept
      : address_(std::exchange(other.address_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  Mapping& operator=(Mapping&& other) noexcept {
    if (this != &other) {
      reset();
      address_ = std::exchange(other.address_, nullptr);
      size_ = std::exchange(other.size_, 0);
    }
    return *this;
  }
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;
  ~Mapping() { reset(); }

  [[nodiscard]] std::byte* data() const noexcept { return static_cast<std::byte*>(address_); }
  [[nodiscard]] std::size_t size() const noexcept { return size_; }
  [[nodiscard]] std::span<std::byte> bytes() const noexcept { return {data(), size_}; }
  [[nodiscard]] explicit operator bool() const noexcept { return address_ != nullptr; }
  void reset() noexcept;

 private:
  void* address_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace sevisor
