// Where the certificates of a platform come from: the platform itself, or files that were exported from it.
#pragma once

#include <optional>
#include <string>

#include "sev/certificate_chain.hpp"

namespace sevisor::cli {

struct CertificateOptions {
  std::string host;   // "emulated" or "kernel"
  std::string files;  // or: a folder with files as sev-tool names them, or one file as sevctl export makes it
  std::string roots;  // AMD's ASK and ARK, in this order in one file, if they are not with the others
};

struct FoundCertificates {
  std::string from;  // for messages
  sev::PlatformCertificates platform;
  std::optional<sev::RootCertificate> ask;
  std::optional<sev::RootCertificate> ark;
};

// Throws Error (kBadUsage, kHostCannot) when they cannot be had or are malformed; nothing is verified.
[[nodiscard]] FoundCertificates find_certificates(const CertificateOptions& options);

// With roots. Throws Error (kBadUsage) when they are missing.
[[nodiscard]] sev::CertificateChain whole_chain(const FoundCertificates& found);

// Verifies the chain, and that its root may be trusted: AMD's; or one whose SHA-256 is `trust_root` (hexadecimal); or
// the emulated platform's own, when `host` says that it is this machine's. Throws Error (kBadUsage). Returns whose root
// it is.
[[nodiscard]] sev::RootIdentity require_trusted(const sev::CertificateChain& chain, const CertificateOptions& options,
                                                const std::string& trust_root);

}  // namespace sevisor::cli
