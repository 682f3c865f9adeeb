// A guest owner's side of a session: the keys for one guest on one platform.
#pragma once

#include <cstdint>
#include <optional>

#include "sev/certificate.hpp"
#include "sev/session.hpp"

namespace sevisor::vmm {

struct OwnerSession {
  sev::Certificate certificate;  // for LAUNCH_START, as is the session
  sev::Session session;
  sev::TransportKeys keys;  // which stay with the owner
};

// With new keys. nullopt when the platform's PDH is not on the curve P-384.
[[nodiscard]] std::optional<OwnerSession> make_owner_session(const sev::Certificate& pdh, std::uint32_t policy);

}  // namespace sevisor::vmm
