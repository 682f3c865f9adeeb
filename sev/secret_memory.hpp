// Memory for keys and secrets: overwritten before it is given back.
#pragma once

#include <cstddef>
#include <memory>
#include <type_traits>
#include <vector>

namespace sevisor::sev {

// Overwrites memory in a way that no optimisation removes.
void wipe(void* memory, std::size_t size) noexcept;

// A value that is wiped when it goes. Copies are wiped too, each on its own.
template <class T>
class Wiped {
  static_assert(std::is_trivially_copyable_v<T>);

 public:
  Wiped() noexcept = default;
  explicit Wiped(const T& value) noexcept : value_(value) {}
  Wiped(const Wiped&) noexcept = default;
  Wiped& operator=(const Wiped&) noexcept = default;
  ~Wiped() { wipe(&value_, sizeof value_); }

  [[nodiscard]] T& operator*() noexcept { return value_; }
  [[nodiscard]] const T& operator*() const noexcept { return value_; }
  [[nodiscard]] T* operator->() noexcept { return &value_; }
  [[nodiscard]] const T* operator->() const noexcept { return &value_; }

 private:
  T value_{};
};

template <class T>
struct WipingAllocator {
  using value_type = T;
  WipingAllocator() noexcept = default;
  template <class U>
  explicit WipingAllocator(const WipingAllocator<U>&) noexcept {}
  [[nodiscard]] T* allocate(std::size_t count) { return std::allocator<T>().allocate(count); }
  void deallocate(T* memory, std::size_t count) noexcept {
    wipe(memory, count * sizeof(T));
    std::allocator<T>().deallocate(memory, count);
  }
  template <class U>
  friend bool operator==(const WipingAllocator&, const WipingAllocator<U>&) noexcept {
    return true;
  }
};

using SecretBytes = std::vector<std::byte, WipingAllocator<std::byte>>;

}  // namespace sevisor::sev
