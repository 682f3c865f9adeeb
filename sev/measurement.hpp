// The launch measurement: the digest, signed with the guest owner's integrity key. AMD SEV API (55766) LAUNCH_MEASURE.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "sev/sha256.hpp"

namespace sevisor::sev {

inline constexpr std::size_t kNonceSize = 16;
inline constexpr std::size_t kTransportKeySize = 16;  // TEK, TIK
inline constexpr std::size_t kMeasurementSize = sizeof(Digest) + kNonceSize;

using Nonce = std::array<std::byte, kNonceSize>;
using TransportKey = std::array<std::byte, kTransportKeySize>;
// HMAC, then MNONCE: what LAUNCH_MEASURE returns.
using Measurement = std::array<std::byte, kMeasurementSize>;

// As SEV_PLATFORM_STATUS reports it.
struct ApiVersion {
  std::uint8_t major = 0;
  std::uint8_t minor = 0;
  std::uint8_t build = 0;
};

// HMAC-SHA256 with the TIK. API versions before 0.17 left version and build out of what is signed.
[[nodiscard]] Digest measurement_hmac(const TransportKey& tik, const ApiVersion& api, std::uint32_t policy,
                                      const Digest& launch_digest, const Nonce& nonce);

[[nodiscard]] Measurement make_measurement(const TransportKey& tik, const ApiVersion& api, std::uint32_t policy,
                                           const Digest& launch_digest, const Nonce& nonce);

}  // namespace sevisor::sev
