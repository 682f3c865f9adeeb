// The session that a guest owner hands to LAUNCH_START: transport keys wrapped for this platform.
// AMD SEV API (55766) section 6.2 LAUNCH_START, table "Session Data Buffer"; appendix C for the certificate.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <variant>

#include "emulator/psp/crypto.hpp"
#include "sev/firmware_status.hpp"

namespace sevisor::emulator {

inline constexpr std::size_t kCertificateBytes = 2084;
inline constexpr std::size_t kSessionBytes = 128;

struct TransportKeys {
  Key128 tek{};  // encrypts what the owner sends
  Key128 tik{};  // signs measurement and secrets
};

// The ECDH public key in a guest owner's certificate; nothing when it is none of curve P-384.
[[nodiscard]] std::optional<P384Point> parse_owner_certificate(std::span<const std::byte> certificate);

// `shared_secret`: of the owner's key and the platform's PDH. kBadMeasurement when a MAC is wrong.
[[nodiscard]] std::variant<TransportKeys, sev::FirmwareStatus> unwrap_session(
    std::span<const std::byte> shared_secret, std::span<const std::byte, kSessionBytes> session, std::uint32_t policy);
// The same from the master secret on.
[[nodiscard]] std::variant<TransportKeys, sev::FirmwareStatus> unwrap_with_master(
    const Key128& master, std::span<const std::byte, kSessionBytes> session, std::uint32_t policy);

}  // namespace sevisor::emulator
