// The cryptography of the SEV API that the launch commands use, by OpenSSL.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string_view>

namespace sevisor::emulator {

using Key128 = std::array<std::byte, 16>;

// All randomness of the emulated platform: SHA-256 of the seed and a counter. The same seed gives the same sequence, so
// that a run can be repeated; nothing made from it is secret.
class SeededRandom {
 public:
  explicit SeededRandom(std::uint64_t seed) noexcept : seed_(seed) {}
  void fill(std::span<std::byte> out);
  [[nodiscard]] Key128 key() {
    Key128 key;
    fill(key);
    return key;
  }

 private:
  std::uint64_t seed_;
  std::uint64_t counter_ = 0;
};

// NIST SP 800-108 in counter mode with HMAC-SHA256, one block: 16 bytes of key. SEV API (55766) section 2.2.2.
[[nodiscard]] Key128 derive_key(std::span<const std::byte> key, std::string_view label,
                                std::span<const std::byte> context);

// `iv`: the initial counter block; big-endian increment. `in` and `out` have one size and may be the same.
void aes128_ctr(const Key128& key, std::span<const std::byte, 16> iv, std::span<const std::byte> in,
                std::span<std::byte> out);

// Compares in constant time.
[[nodiscard]] bool same_bytes(std::span<const std::byte> a, std::span<const std::byte> b);

// An ECDH key of curve P-384.
inline constexpr std::size_t kP384Bytes = 48;
struct P384Point {
  std::array<std::byte, kP384Bytes> x{};  // big-endian
  std::array<std::byte, kP384Bytes> y{};
};

class P384Key {
 public:
  explicit P384Key(SeededRandom& random);
  // `scalar`: the private number, big-endian, from 1 to the curve's order - 1.
  explicit P384Key(std::span<const std::byte> scalar);
  ~P384Key();
  P384Key(const P384Key&) = delete;
  P384Key& operator=(const P384Key&) = delete;

  [[nodiscard]] const P384Point& public_point() const noexcept { return public_point_; }
  // The x coordinate of the shared point; nothing when `peer` is not on the curve.
  [[nodiscard]] std::optional<std::array<std::byte, kP384Bytes>> shared_secret(const P384Point& peer) const;

 private:
  struct Impl;
  void find_public_point();
  std::unique_ptr<Impl> impl_;
  P384Point public_point_;
};

}  // namespace sevisor::emulator
