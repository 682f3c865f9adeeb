// Who an emulated platform is: its certificate chain, and the private key that guest owners make sessions with.
#pragma once

#include <memory>
#include <string>

#include "sev/certificate_chain.hpp"
#include "sev/public_key.hpp"

namespace sevisor::emulator {

struct PlatformIdentity {
  sev::CertificateChain chain;
  sev::PrivateKey pdh;
};

// New keys from the system's generator; those of the root, the ASK, CEK, OCA and PEK are forgotten once they have
// signed. The root says of itself that it is not AMD's (sev::kSoftwareRootId).
[[nodiscard]] PlatformIdentity make_platform_identity();

// The identity that this machine's emulated platform has for this user: kept in `folder` and made there when it is not
// there yet. Throws Error (kBadUsage) when the folder cannot be read or written, or what is in it is damaged.
[[nodiscard]] std::shared_ptr<const PlatformIdentity> load_platform_identity(const std::string& folder);

// XDG_DATA_HOME or ~/.local/share (XDG Base Directory Specification), and "sevisor/emulated-platform" in it. Throws
// Error (kBadUsage) when neither variable is set.
[[nodiscard]] std::string platform_identity_folder();

}  // namespace sevisor::emulator
