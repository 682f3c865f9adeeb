// Access to memory that the caller of an ioctl names: a bad address gives EFAULT, as in the kernel, not a crash.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace sevisor::emulator {

// false: some of it cannot be read or written.
[[nodiscard]] bool copy_from_user(std::span<std::byte> to, const void* from);
[[nodiscard]] bool copy_to_user(void* to, std::span<const std::byte> from);
// What the kernel pins pages for: to read them, or to write them too (FOLL_WRITE).
enum class Pin : std::uint8_t { kRead, kWrite };
// Whether all of [address, address + size) could be pinned: mapped, and with that permission. No page of it is touched.
[[nodiscard]] bool user_range_pinnable(const void* address, std::size_t size, Pin pin);

template <class T>
[[nodiscard]] bool get_user(T& to, const void* from) {
  return copy_from_user(std::as_writable_bytes(std::span(&to, 1)), from);
}
template <class T>
[[nodiscard]] bool put_user(void* to, const T& from) {
  return copy_to_user(to, std::as_bytes(std::span(&from, 1)));
}

[[nodiscard]] inline void* user_pointer(std::uint64_t address) { return reinterpret_cast<void*>(address); }

}  // namespace sevisor::emulator
