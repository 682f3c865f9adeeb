// Random numbers for test cases: splitmix64, the same sequence for the same seed everywhere.
#pragma once

#include <array>
#include <cstdint>

namespace sevisor::cpu_diff {

class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed) {}
  std::uint64_t next() {
    state_ += 0x9e3779b97f4a7c15;
    std::uint64_t z = state_;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
  }
  // 0..n-1; n is not 0.
  std::uint64_t below(std::uint64_t n) { return next() % n; }
  bool one_in(std::uint64_t n) { return below(n) == 0; }
  std::uint8_t byte() { return static_cast<std::uint8_t>(next()); }
  // A register's contents: often a value at an edge of some size.
  std::uint64_t value() {
    constexpr std::array<std::uint64_t, 12> kEdges = {
        0, 1, 0x7f, 0x80, 0xff, 0x7fff, 0x8000, 0xffff, 0x7fffffff, 0x80000000, 0xffffffff, 0x8000000000000000};
    switch (below(8)) {
      case 0:
        return kEdges[below(kEdges.size())];
      case 1:
        return ~kEdges[below(kEdges.size())];
      case 2:
        return below(256);
      case 3:
        return next() << 32 | kEdges[below(kEdges.size())];
      default:
        return next();
    }
  }

 private:
  std::uint64_t state_;
};

}  // namespace sevisor::cpu_diff
