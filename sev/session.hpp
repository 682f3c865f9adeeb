// The session that a guest owner hands to LAUNCH_START: transport keys, wrapped for one platform and bound to a policy.
// AMD SEV API (55766) section 6.2 LAUNCH_START, table "Session Data Buffer"; section 2.2 for the keys.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "sev/crypto.hpp"
#include "sev/measurement.hpp"
#include "sev/secret_memory.hpp"

namespace sevisor::sev {

inline constexpr std::size_t kSessionSize = 128;
using Session = std::array<std::byte, kSessionSize>;

struct TransportKeys {
  Wiped<TransportKey> tek;  // encrypts secrets
  Wiped<TransportKey> tik;  // signs the measurement and secrets
};

// From the system's generator.
[[nodiscard]] TransportKeys make_transport_keys();

// `shared_secret`: the x coordinate of ECDH between the owner's key and the platform's PDH, big-endian, 48 bytes.
[[nodiscard]] Wiped<Key128> session_master_secret(std::span<const std::byte> shared_secret, const Nonce& nonce);

// `nonce`, `iv`: random, never used twice.
[[nodiscard]] Session make_session(const Key128& master, const Nonce& nonce, const Nonce& iv, const TransportKeys& keys,
                                   std::uint32_t policy);

// What the platform does with it: nothing when a MAC is wrong, so when the session is not for this platform, not with
// this policy, or damaged.
[[nodiscard]] std::optional<TransportKeys> open_session(std::span<const std::byte> shared_secret,
                                                        std::span<const std::byte, kSessionSize> session,
                                                        std::uint32_t policy);

}  // namespace sevisor::sev
