#include "firmware/sha256.hpp"

#include "base/bytes.hpp"
#include "firmware/sha256_constants.hpp"

namespace sevisor::firmware {

namespace {
constexpr std::size_t kRounds = 64;
constexpr std::size_t kLengthBytes = 8;

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
using State = std::array<std::uint32_t, 8>;

void compress(State& state, const std::byte* block) noexcept {
  Window window;  // the last 16 words of the message schedule
  for (std::size_t i = 0; i < window.size(); ++i) window[i] = swap_bytes(load<std::uint32_t>(block + 4 * i));
  // Eight rounds at a time, in which the words of the state change places by their names instead of being moved.
  auto [a, b, c, d, e, f, g, h] = state;
  for (std::size_t i = 0; i < kRounds; i += 16) {
    const std::uint32_t* constants = kSha256RoundConstants + i;
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
  const State result{a, b, c, d, e, f, g, h};
  for (std::size_t i = 0; i < state.size(); ++i) state[i] += result[i];
}
}  // namespace

void sha256_blocks(std::uint32_t* state, const std::byte* blocks, std::size_t count) noexcept {
  State words;
  for (std::size_t i = 0; i < words.size(); ++i) words[i] = state[i];
  for (; count != 0; --count, blocks += kSha256BlockBytes) compress(words, blocks);
  for (std::size_t i = 0; i < words.size(); ++i) state[i] = words[i];
}

void Sha256::update(std::span<const std::byte> bytes) noexcept {
  std::size_t used = length_ % kSha256BlockBytes;
  length_ += bytes.size();
  if (used != 0) {
    while (used < kSha256BlockBytes && !bytes.empty()) {
      tail_[used++] = bytes.front();
      bytes = bytes.subspan(1);
    }
    if (used < kSha256BlockBytes) return;
    blocks_(state_.data(), tail_.data(), 1);
  }
  const std::size_t whole = bytes.size() / kSha256BlockBytes;
  blocks_(state_.data(), bytes.data(), whole);
  bytes = bytes.subspan(whole * kSha256BlockBytes);
  for (std::size_t i = 0; i < bytes.size(); ++i) tail_[i] = bytes[i];
}

Sha256Digest Sha256::finish() noexcept {
  const std::uint64_t bits = length_ * 8;
  std::size_t used = length_ % kSha256BlockBytes;
  tail_[used++] = std::byte{0x80};
  if (used > kSha256BlockBytes - kLengthBytes) {
    while (used < kSha256BlockBytes) tail_[used++] = std::byte{0};
    blocks_(state_.data(), tail_.data(), 1);
    used = 0;
  }
  while (used < kSha256BlockBytes - kLengthBytes) tail_[used++] = std::byte{0};
  store(tail_.data() + used, swap_bytes(bits));
  blocks_(state_.data(), tail_.data(), 1);
  Sha256Digest digest;
  for (std::size_t i = 0; i < state_.size(); ++i) store(digest.data() + 4 * i, swap_bytes(state_[i]));
  return digest;
}

Sha256Digest sha256(std::span<const std::byte> bytes, Sha256Blocks blocks) noexcept {
  Sha256 hash(blocks);
  hash.update(bytes);
  return hash.finish();
}

}  // namespace sevisor::firmware
