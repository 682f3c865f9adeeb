// What the platform reads of a guest owner's certificate at LAUNCH_START. AMD SEV API (55766) appendix C.
#pragma once

#include <cstddef>
#include <optional>
#include <span>

#include "sev/public_key.hpp"

namespace sevisor::emulator {

// The ECDH public key in the certificate; nothing when it is none of curve P-384. As on silicon nothing else is looked
// at, signatures neither.
[[nodiscard]] std::optional<sev::PublicKey> parse_owner_certificate(std::span<const std::byte> certificate);

}  // namespace sevisor::emulator
