// The chain from AMD's root to a platform's Diffie-Hellman key, which guest owners make sessions with.
// AMD SEV API (55766) section 1.2.4; files as sev-tool and sevctl name and order them.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "sev/certificate.hpp"
#include "sev/sha256.hpp"

namespace sevisor::sev {

struct CertificateChain {
  RootCertificate ark;  // signs itself and the ASK
  RootCertificate ask;  // signs the CEK
  Certificate cek;      // signs the PEK
  Certificate oca;      // signs itself and the PEK
  Certificate pek;      // signs the PDH
  Certificate pdh;
};

// PEK, OCA, CEK: what PDH_CERT_EXPORT returns besides the PDH.
inline constexpr std::size_t kPlatformCertificatesSize = 3 * kCertificateSize;

struct PlatformCertificates {
  Certificate pdh;
  Certificate pek;
  Certificate oca;
  Certificate cek;
};
// As PDH_CERT_EXPORT returns them. Throws Error (kBadUsage).
[[nodiscard]] PlatformCertificates parse_platform_certificates(std::span<const std::byte> pdh,
                                                               std::span<const std::byte> chain);

// One signature that was looked at, as "the PEK is signed by the CEK".
struct ChainStep {
  std::string text;
  bool right = false;
};
// All of them, from the root down, with each certificate's usage.
[[nodiscard]] std::vector<ChainStep> check_chain(const CertificateChain& chain);

// Throws Error (kBadUsage) that names the first wrong step.
void require_chain(const CertificateChain& chain);

// Whose root it is.
enum class RootKind : std::uint8_t {
  kAmd,       // one of AMD's, by the certificate's SHA-256
  kSoftware,  // it says of itself that it is a software platform's, which anyone can make
  kUnknown,
};
struct RootIdentity {
  RootKind kind = RootKind::kUnknown;
  std::string text;      // "AMD's root for Milan"
  Digest fingerprint{};  // SHA-256 of the certificate
};
[[nodiscard]] RootIdentity identify_root(const RootCertificate& ark);

// The identifiers that a software platform's root and signing key have: their text says what they are.
inline constexpr std::string_view kSoftwareRootId = "NOT-AMD software";
inline constexpr std::string_view kSoftwareSigningId = "NOT-AMD sw. ASK ";

}  // namespace sevisor::sev
