// Public-key cryptography of the SEV API, by OpenSSL: RSA with PSS, ECDSA and ECDH on P-256 and P-384.
// AMD SEV API (55766) appendix C.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "sev/secret_memory.hpp"

namespace sevisor::sev {

enum class Curve : std::uint32_t { kP256 = 1, kP384 = 2 };
enum class HashKind : std::uint8_t { kSha256, kSha384 };

inline constexpr std::size_t kMaxCoordinateSize = 48;  // bytes, P-384's

// A point as certificates hold it: little-endian, zero above the curve's size.
struct EcPoint {
  Curve curve = Curve::kP384;
  std::array<std::byte, 72> x{};
  std::array<std::byte, 72> y{};
};

struct RsaNumbers {
  std::vector<std::byte> modulus;  // little-endian
  std::vector<std::byte> exponent;
};

struct EcSignature {
  std::array<std::byte, 72> r{};  // little-endian
  std::array<std::byte, 72> s{};
};

class PublicKey {
 public:
  // Nothing when the point is not on the curve, is infinity, or a coordinate is too large.
  [[nodiscard]] static std::optional<PublicKey> of(const EcPoint& point);
  // Nothing when OpenSSL takes the numbers for no key.
  [[nodiscard]] static std::optional<PublicKey> of(const RsaNumbers& numbers);

  [[nodiscard]] bool is_rsa() const noexcept;
  // Of a RSA key: bytes of the modulus and of a signature.
  [[nodiscard]] std::size_t size() const noexcept;
  // False as well when the key is of the other kind.
  [[nodiscard]] bool verify(HashKind hash, std::span<const std::byte> message, const EcSignature& signature) const;
  // `signature`: little-endian, as long as the modulus. Any length of salt is accepted.
  [[nodiscard]] bool verify_pss(HashKind hash, std::span<const std::byte> message,
                                std::span<const std::byte> signature) const;

 private:
  friend class PrivateKey;
  explicit PublicKey(std::shared_ptr<void> key) noexcept : key_(std::move(key)) {}
  std::shared_ptr<void> key_;  // EVP_PKEY
};

class PrivateKey {
 public:
  [[nodiscard]] static PrivateKey make_ec(Curve curve);
  [[nodiscard]] static PrivateKey make_rsa(unsigned bits);
  // What scalar() told. Nothing unless it has as many bytes as a coordinate and is from 1 to the curve's order - 1.
  [[nodiscard]] static std::optional<PrivateKey> of_scalar(Curve curve, std::span<const std::byte> scalar);

  [[nodiscard]] PublicKey public_key() const { return PublicKey(key_); }
  [[nodiscard]] EcPoint point() const;       // of an EC key
  [[nodiscard]] RsaNumbers numbers() const;  // of a RSA key
  // Of an EC key: the private number, big-endian, as long as a coordinate.
  [[nodiscard]] SecretBytes scalar() const;

  [[nodiscard]] EcSignature sign(HashKind hash, std::span<const std::byte> message) const;
  // Little-endian; salt as long as the hash.
  [[nodiscard]] std::vector<std::byte> sign_pss(HashKind hash, std::span<const std::byte> message) const;

  // ECDH: the x coordinate, big-endian, as long as the curve's. Nothing when the keys' curves differ.
  [[nodiscard]] std::optional<SecretBytes> shared_secret(const PublicKey& peer) const;

 private:
  explicit PrivateKey(std::shared_ptr<void> key) noexcept : key_(std::move(key)) {}
  std::shared_ptr<void> key_;  // EVP_PKEY
};

}  // namespace sevisor::sev
