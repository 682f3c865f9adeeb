#include "firmware/sha256.hpp"

#include "base/bytes.hpp"

namespace sevisor::firmware {

namespace {
constexpr std::size_t kRounds = 64;
constexpr std::size_t kLengthBytes = 8;

// Fractional parts of the cube roots of the first 64 primes (section 4.2.2).
constexpr std::array<std::uint32_t, kRounds> kRoundConstants{
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

constexpr std::uint32_t rotate_right(std::uint32_t value, unsigned bits) noexcept {
  return value >> bits | value << (32 - bits);
}

using Window = std::array<std::uint32_t, 16>;

// The next sixteen words of the message schedule (section 6.2.2 step 1).
[[gnu::always_inline]] inline void extend(Window& window) noexcept {
#pragma GCC unroll 16
  for (std::size_t i = 0; i < window.size(); ++i) {
    const std::uint32_t near = window[(i + 14) % 16];
    const std::uint32_t far = window[(i + 1) % 16];
    window[i] += window[(i + 9) % 16] + (rotate_right(near, 17) ^ rotate_right(near, 19) ^ near >> 10) +
                 (rotate_right(far, 7) ^ rotate_right(far, 18) ^ far >> 3);
  }
}

// Step 3, but for the moves: `d` and `h` become what the specification then calls e and a.
[[gnu::always_inline]] inline void round(std::uint32_t a, std::uint32_t b, std::uint32_t c, std::uint32_t& d,
                                         std::uint32_t e, std::uint32_t f, std::uint32_t g, std::uint32_t& h,
                                         std::uint32_t word) noexcept {
  h += (rotate_right(e, 6) ^ rotate_right(e, 11) ^ rotate_right(e, 25)) + (g ^ (e & (f ^ g))) + word;
  d += h;
  h += (rotate_right(a, 2) ^ rotate_right(a, 13) ^ rotate_right(a, 22)) + ((a & b) | (c & (a | b)));
}
}  // namespace

void Sha256::compress(const std::byte* block) noexcept {
  Window window;  // the last 16 words of the message schedule
  for (std::size_t i = 0; i < window.size(); ++i) window[i] = swap_bytes(load<std::uint32_t>(block + 4 * i));
  // Eight rounds at a time, in which the words of the state change places by their names instead of being moved.
  auto [a, b, c, d, e, f, g, h] = state_;
  for (std::size_t i = 0; i < kRounds; i += 16) {
    const std::uint32_t* constants = kRoundConstants.data() + i;
    if (i != 0) extend(window);
    for (std::size_t half = 0; half < 16; half += 8) {
      const std::uint32_t* words = window.data() + half;
      const std::uint32_t* k = constants + half;
      round(a, b, c, d, e, f, g, h, k[0] + words[0]);
      round(h, a, b, c, d, e, f, g, k[1] + words[1]);
      round(g, h, a, b, c, d, e, f, k[2] + words[2]);
      round(f, g, h, a, b, c, d, e, k[3] + words[3]);
      round(e, f, g, h, a, b, c, d, k[4] + words[4]);
      round(d, e, f, g, h, a, b, c, k[5] + words[5]);
      round(c, d, e, f, g, h, a, b, k[6] + words[6]);
      round(b, c, d, e, f, g, h, a, k[7] + words[7]);
    }
  }
  const std::array<std::uint32_t, 8> result{a, b, c, d, e, f, g, h};
  for (std::size_t i = 0; i < state_.size(); ++i) state_[i] += result[i];
}

void Sha256::update(std::span<const std::byte> bytes) noexcept {
  std::size_t used = length_ % kBlockBytes;
  length_ += bytes.size();
  if (used != 0) {
    while (used < kBlockBytes && !bytes.empty()) {
      tail_[used++] = bytes.front();
      bytes = bytes.subspan(1);
    }
    if (used < kBlockBytes) return;
    compress(tail_.data());
  }
  while (bytes.size() >= kBlockBytes) {
    compress(bytes.data());
    bytes = bytes.subspan(kBlockBytes);
  }
  for (std::size_t i = 0; i < bytes.size(); ++i) tail_[i] = bytes[i];
}

Sha256Digest Sha256::finish() noexcept {
  const std::uint64_t bits = length_ * 8;
  std::size_t used = length_ % kBlockBytes;
  tail_[used++] = std::byte{0x80};
  if (used > kBlockBytes - kLengthBytes) {
    while (used < kBlockBytes) tail_[used++] = std::byte{0};
    compress(tail_.data());
    used = 0;
  }
  while (used < kBlockBytes - kLengthBytes) tail_[used++] = std::byte{0};
  store(tail_.data() + used, swap_bytes(bits));
  compress(tail_.data());
  Sha256Digest digest;
  for (std::size_t i = 0; i < state_.size(); ++i) store(digest.data() + 4 * i, swap_bytes(state_[i]));
  return digest;
}

Sha256Digest sha256(std::span<const std::byte> bytes) noexcept {
  Sha256 hash;
  hash.update(bytes);
  return hash.finish();
}

}  // namespace sevisor::firmware
