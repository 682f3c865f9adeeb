// All randomness of the emulated platform.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "sev/crypto.hpp"
#include "sev/public_key.hpp"

namespace sevisor::emulator {

using sev::Key128;

// SHA-256 of the seed and a counter. The same seed gives the same sequence, so that a run can be repeated; nothing made
// from it is secret.
class SeededRandom {
 public:
  // `stream`: sequences of one seed that have nothing to do with each other.
  explicit SeededRandom(std::uint64_t seed, std::uint64_t stream = 0) noexcept : seed_(seed), counter_(stream << 32) {}
  void fill(std::span<std::byte> out);
  [[nodiscard]] Key128 key() {
    Key128 key;
    fill(key);
    return key;
  }

 private:
  std::uint64_t seed_;
  std::uint64_t counter_;
};

// An ECDH key of curve P-384.
[[nodiscard]] sev::PrivateKey make_ecdh_key(SeededRandom& random);

}  // namespace sevisor::emulator
