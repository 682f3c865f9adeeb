// What compilers expect of a C library even freestanding (ISO C 7.26; GCC manual, "Standards"), and what a pure virtual
// call would be.
#include <cstddef>
#include <cstdint>

#include "firmware/cpu.hpp"

extern "C" {

void* memcpy(void* to, const void* from, std::size_t count) {
  void* destination = to;
  std::size_t quadwords = count / 8;
  asm volatile("rep movsq" : "+D"(destination), "+S"(from), "+c"(quadwords) : : "memory");
  std::size_t rest = count % 8;
  asm volatile("rep movsb" : "+D"(destination), "+S"(from), "+c"(rest) : : "memory");
  return to;
}

void* memset(void* to, int value, std::size_t count) {
  void* destination = to;
  const std::uint64_t pattern = 0x0101010101010101 * static_cast<unsigned char>(value);
  std::size_t quadwords = count / 8;
  asm volatile("rep stosq" : "+D"(destination), "+c"(quadwords) : "a"(pattern) : "memory");
  std::size_t rest = count % 8;
  asm volatile("rep stosb" : "+D"(destination), "+c"(rest) : "a"(pattern) : "memory");
  return to;
}

void* memmove(void* to, const void* from, std::size_t count) {
  if (to <= from) return memcpy(to, from, count);
  auto* destination = static_cast<unsigned char*>(to) + count - 1;
  const auto* source = static_cast<const unsigned char*>(from) + count - 1;
  asm volatile("std; rep movsb; cld" : "+D"(destination), "+S"(source), "+c"(count) : : "memory");
  return to;
}

int memcmp(const void* left, const void* right, std::size_t count) {
  const auto* a = static_cast<const volatile unsigned char*>(left);
  const auto* b = static_cast<const volatile unsigned char*>(right);
  for (std::size_t i = 0; i < count; ++i) {
    if (a[i] != b[i]) return a[i] < b[i] ? -1 : 1;
  }
  return 0;
}

std::size_t strlen(const char* text) {
  const volatile char* at = text;
  std::size_t length = 0;
  while (at[length] != 0) ++length;
  return length;
}

// NOLINTNEXTLINE(bugprone-reserved-identifier,cert-dcl37-c,cert-dcl51-cpp): the ABI names it so
void __cxa_pure_virtual() { sevisor::firmware::halt_forever(); }

}  // extern "C"
