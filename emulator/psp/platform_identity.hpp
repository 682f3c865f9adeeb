// Who an emulated platform is: what its maker put into the chip, and the NVRAM of its firmware.
#pragma once

#include <memory>
#include <string>

#include "emulator/psp/nvram.hpp"
#include "emulator/psp/platform_keys.hpp"
#include "sev/certificate_chain.hpp"

namespace sevisor::emulator {

struct PlatformIdentity {
  sev::RootCertificate ark;  // the maker's, as AMD hands out its own; the firmware knows neither
  sev::RootCertificate ask;
  ChipKeys chip;
  std::shared_ptr<Nvram> nvram;

  // The whole chain, with what is in NVRAM now. Throws Error (kBadUsage) when that is not this chip's.
  [[nodiscard]] sev::CertificateChain chain() const;
};

// New keys from the system's generator; those of the root and the ASK are forgotten once they have signed. The root
// says of itself that it is not AMD's (sev::kSoftwareRootId). The NVRAM has keys, and is lost with the process.
[[nodiscard]] PlatformIdentity make_platform_identity();

// The identity that this machine's emulated platform has for this user: kept in `folder` and made there when it is not
// there yet. Throws Error (kBadUsage) when the folder cannot be read or written, or the chip's part of it is damaged.
// Damaged NVRAM is the firmware's to find (INIT: SECURE_DATA_INVALID) and to replace.
[[nodiscard]] std::shared_ptr<const PlatformIdentity> load_platform_identity(const std::string& folder);

// XDG_DATA_HOME or ~/.local/share (XDG Base Directory Specification), and "sevisor/emulated-platform" in it. Throws
// Error (kBadUsage) when neither variable is set.
[[nodiscard]] std::string platform_identity_folder();

}  // namespace sevisor::emulator
