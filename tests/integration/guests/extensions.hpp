// The parts of the program that tests what the processor can do. Each prints lines "extensions: name hash"; the same
// program prints the same on any processor that computes correctly.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>

namespace extensions {

// splitmix64.
class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed) {}
  std::uint64_t next() {
    std::uint64_t z = state_ += 0x9e3779b97f4a7c15;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
  }
  // Between -1000 and 1000, now and then at an edge of the format.
  double number();
  template <class T>
  T bits() {
    T value;
    auto* bytes = reinterpret_cast<unsigned char*>(&value);
    for (std::size_t n = 0; n < sizeof value; ++n) bytes[n] = static_cast<unsigned char>(next());
    return value;
  }

 private:
  std::uint64_t state_;
};

// FNV-1a over everything that is put in.
class Hash {
 public:
  template <class T>
  void put(const T& value) {
    put_bytes(&value, sizeof value);
  }
  void put_bytes(const void* data, std::size_t size) {
    const auto* bytes = static_cast<const unsigned char*>(data);
    for (std::size_t n = 0; n < size; ++n) value_ = (value_ ^ bytes[n]) * 0x100000001b3;
  }
  void print(const char* name) const {
    std::printf("extensions: %s %016llx\n", name, static_cast<unsigned long long>(value_));
  }

 private:
  std::uint64_t value_ = 0xcbf29ce484222325;
};

void integers();    // BMI1, BMI2, ADX, MOVBE, POPCNT, LZCNT, CRC32
void sse();         // SSE to SSE4.2, MMX
void crypto();      // AES-NI, PCLMULQDQ, SHA, VAES, VPCLMULQDQ
void avx();         // AVX, AVX2, FMA, F16C
void floating();    // x87, rounding, exceptions, what the compiler makes of loops
void library();     // the C library's own use of them
void user_level();  // the other instructions of user programs: FSGSBASE, RDRAND, CMPXCHG16B, CLZERO, SSE4A, XSAVE ...
void switches();    // the kernel keeps the registers over signals and context switches

// Does this program use all that CPUID offers to user programs? Prints what it does not.
[[nodiscard]] bool everything_used();

}  // namespace extensions
