#include "emulator/psp/session.hpp"

#include <algorithm>

#include "base/bytes.hpp"
#include "sev/sha256.hpp"

namespace sevisor::emulator {

namespace {

// The certificate's fields, bytes from its start.
constexpr std::size_t kVersionAt = 0;
constexpr std::size_t kAlgorithmAt = 12;
constexpr std::size_t kCurveAt = 16;
constexpr std::size_t kXAt = 20;
constexpr std::size_t kYAt = 92;
constexpr std::size_t kCoordinateBytes = 72;  // little-endian, zero above the curve's size
constexpr std::uint32_t kVersion = 1;
constexpr std::uint32_t kEcdhSha256 = 0x003;
constexpr std::uint32_t kEcdhSha384 = 0x103;
constexpr std::uint32_t kCurveP384 = 2;

// The session's.
constexpr std::size_t kNonceAt = 0;
constexpr std::size_t kWrappedAt = 16;
constexpr std::size_t kWrappedBytes = 32;  // TEK, TIK
constexpr std::size_t kIvAt = 48;
constexpr std::size_t kWrapMacAt = 64;
constexpr std::size_t kPolicyMacAt = 96;
constexpr std::size_t kMacBytes = 32;

bool take_coordinate(std::span<const std::byte> field, std::array<std::byte, kP384Bytes>& out) {
  std::reverse_copy(field.begin(), field.begin() + kP384Bytes, out.begin());
  return std::all_of(field.begin() + kP384Bytes, field.end(), [](std::byte b) { return b == std::byte{0}; });
}

}  // namespace

std::optional<P384Point> parse_owner_certificate(std::span<const std::byte> certificate) {
  if (certificate.size() != kCertificateBytes) return std::nullopt;
  const auto word = [&](std::size_t at) { return load<std::uint32_t>(certificate.data() + at); };
  const std::uint32_t algorithm = word(kAlgorithmAt);
  if (word(kVersionAt) != kVersion || word(kCurveAt) != kCurveP384) return std::nullopt;
  if (algorithm != kEcdhSha256 && algorithm != kEcdhSha384) return std::nullopt;
  P384Point point;
  if (!take_coordinate(certificate.subspan(kXAt, kCoordinateBytes), point.x)) return std::nullopt;
  if (!take_coordinate(certificate.subspan(kYAt, kCoordinateBytes), point.y)) return std::nullopt;
  return point;
}

std::variant<TransportKeys, sev::FirmwareStatus> unwrap_session(std::span<const std::byte> shared_secret,
                                                                std::span<const std::byte, kSessionBytes> session,
                                                                std::uint32_t policy) {
  return unwrap_with_master(derive_key(shared_secret, "sev-master-secret", session.subspan<kNonceAt, 16>()), session,
                            policy);
}

std::variant<TransportKeys, sev::FirmwareStatus> unwrap_with_master(const Key128& master,
                                                                    std::span<const std::byte, kSessionBytes> session,
                                                                    std::uint32_t policy) {
  const Key128 kek = derive_key(master, "sev-kek", {});
  const Key128 kik = derive_key(master, "sev-kik", {});
  const auto wrapped = session.subspan<kWrappedAt, kWrappedBytes>();
  if (!same_bytes(sev::hmac_sha256(kik, wrapped), session.subspan<kWrapMacAt, kMacBytes>())) {
    return sev::FirmwareStatus::kBadMeasurement;
  }
  std::array<std::byte, kWrappedBytes> plain;
  aes128_ctr(kek, session.subspan<kIvAt, 16>(), wrapped, plain);
  TransportKeys keys;
  std::copy_n(plain.begin(), 16, keys.tek.begin());
  std::copy_n(plain.begin() + 16, 16, keys.tik.begin());
  std::array<std::byte, 4> policy_bytes;
  store(policy_bytes.data(), policy);
  if (!same_bytes(sev::hmac_sha256(keys.tik, policy_bytes), session.subspan<kPolicyMacAt, kMacBytes>())) {
    return sev::FirmwareStatus::kBadMeasurement;
  }
  return keys;
}

}  // namespace sevisor::emulator
