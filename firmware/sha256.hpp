// SHA-256 (FIPS 180-4 section 6.2). Freestanding: no heap.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace sevisor::firmware {

using Sha256Digest = std::array<std::byte, 32>;

inline constexpr std::size_t kSha256BlockBytes = 64;

// Compresses `count` blocks into the eight words of `state`: this one in general registers, or sha256_blocks_ni().
using Sha256Blocks = void (*)(std::uint32_t* state, const std::byte* blocks, std::size_t count) noexcept;
void sha256_blocks(std::uint32_t* state, const std::byte* blocks, std::size_t count) noexcept;

class Sha256 {
 public:
  explicit Sha256(Sha256Blocks blocks = sha256_blocks) noexcept : blocks_(blocks) {}

  void update(std::span<const std::byte> bytes) noexcept;
  // Ends the message; the object is used up.
  [[nodiscard]] Sha256Digest finish() noexcept;

 private:
  Sha256Blocks blocks_;
  std::array<std::uint32_t, 8> state_{0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                      0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  std::uint64_t length_ = 0;  // bytes of the message so far
  std::array<std::byte, kSha256BlockBytes> tail_{};
};

[[nodiscard]] Sha256Digest sha256(std::span<const std::byte> bytes, Sha256Blocks blocks = sha256_blocks) noexcept;

}  // namespace sevisor::firmware
