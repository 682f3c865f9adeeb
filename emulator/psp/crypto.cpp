#include "emulator/psp/crypto.hpp"

#include <algorithm>
#include <array>

#include "base/bytes.hpp"
#include "sev/sha256.hpp"

namespace sevisor::emulator {

void SeededRandom::fill(std::span<std::byte> out) {
  while (!out.empty()) {
    std::array<std::byte, 16> block;
    store(block.data(), seed_);
    store(block.data() + 8, counter_++);
    const sev::Digest digest = sev::sha256(block);
    const std::size_t bytes = std::min(out.size(), digest.size());
    std::copy_n(digest.begin(), bytes, out.begin());
    out = out.subspan(bytes);
  }
}

sev::PrivateKey make_ecdh_key(SeededRandom& random) {
  // The curve's order has 384 bits; with 32 fewer the number is always below it.
  constexpr std::size_t kZeros = 4;
  std::array<std::byte, sev::kMaxCoordinateSize> scalar{};
  random.fill(std::span(scalar).subspan(kZeros));
  return sev::PrivateKey::of_scalar(sev::Curve::kP384, scalar).value();
}

}  // namespace sevisor::emulator
