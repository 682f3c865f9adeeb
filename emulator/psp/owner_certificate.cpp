#include "emulator/psp/owner_certificate.hpp"

#include <algorithm>

#include "base/bytes.hpp"
#include "sev/certificate.hpp"

namespace sevisor::emulator {

namespace {

// Fields, bytes from the certificate's start.
constexpr std::size_t kVersionAt = 0;
constexpr std::size_t kAlgorithmAt = 12;
constexpr std::size_t kCurveAt = 16;
constexpr std::size_t kXAt = 20;
constexpr std::size_t kYAt = 92;
constexpr std::uint32_t kVersion = 1;

}  // namespace

std::optional<sev::PublicKey> parse_owner_certificate(std::span<const std::byte> certificate) {
  if (certificate.size() != sev::kCertificateSize) return std::nullopt;
  const auto word = [&](std::size_t at) { return load<std::uint32_t>(certificate.data() + at); };
  const auto algorithm = static_cast<sev::KeyAlgorithm>(word(kAlgorithmAt));
  if (word(kVersionAt) != kVersion || word(kCurveAt) != static_cast<std::uint32_t>(sev::Curve::kP384)) {
    return std::nullopt;
  }
  if (algorithm != sev::KeyAlgorithm::kEcdhSha256 && algorithm != sev::KeyAlgorithm::kEcdhSha384) return std::nullopt;
  sev::EcPoint point;
  point.curve = sev::Curve::kP384;
  std::ranges::copy(certificate.subspan(kXAt, point.x.size()), point.x.begin());
  std::ranges::copy(certificate.subspan(kYAt, point.y.size()), point.y.begin());
  return sev::PublicKey::of(point);
}

}  // namespace sevisor::emulator
