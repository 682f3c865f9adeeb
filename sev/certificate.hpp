// Certificates of the SEV API: of a platform and a guest owner (2084 bytes), and of AMD's signing keys.
// AMD SEV API (55766) appendix C "Certificate formats". All bytes are untrusted input.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "sev/public_key.hpp"

namespace sevisor::sev {

// What a key is for.
enum class KeyUsage : std::uint32_t {
  kArk = 0x0,         // AMD root key
  kAsk = 0x13,        // AMD SEV signing key
  kInvalid = 0x1000,  // of a signature that is not there
  kOca = 0x1001,      // platform owner's certificate authority key
  kPek = 0x1002,      // platform endorsement key
  kPdh = 0x1003,      // platform Diffie-Hellman key; a guest owner's too
  kCek = 0x1004,      // chip endorsement key
};

enum class KeyAlgorithm : std::uint32_t {
  kNone = 0,
  kRsaSha256 = 0x1,
  kEcdsaSha256 = 0x2,
  kEcdhSha256 = 0x3,
  kRsaSha384 = 0x101,
  kEcdsaSha384 = 0x102,
  kEcdhSha384 = 0x103,
};

// "PEK"; "usage 0x7" for a number without a name.
[[nodiscard]] std::string key_usage_text(KeyUsage usage);
[[nodiscard]] std::string key_algorithm_text(KeyAlgorithm algorithm);

inline constexpr std::size_t kCertificateSize = 2084;

class Certificate {
 public:
  // `what`: "PEK", for messages. Throws Error (kBadUsage) when it is not 2084 bytes, has another version than 1, its
  // key is none, a signature is neither one nor absent, or bytes that have no meaning are not zero.
  [[nodiscard]] static Certificate parse(std::span<const std::byte> bytes, std::string_view what);
  // Without signatures. The key's kind must fit `algorithm`.
  [[nodiscard]] static Certificate make(KeyUsage usage, KeyAlgorithm algorithm, const PrivateKey& key,
                                        std::uint8_t api_major, std::uint8_t api_minor);

  [[nodiscard]] std::span<const std::byte, kCertificateSize> bytes() const noexcept { return bytes_; }
  [[nodiscard]] std::uint8_t api_major() const noexcept;
  [[nodiscard]] std::uint8_t api_minor() const noexcept;
  [[nodiscard]] KeyUsage usage() const noexcept;
  [[nodiscard]] KeyAlgorithm algorithm() const noexcept;
  [[nodiscard]] const PublicKey& key() const noexcept { return key_; }

  // Whose signatures stand in the two slots, whether or not they are right.
  [[nodiscard]] std::vector<KeyUsage> signers() const;
  // Whether one of the two is `signer`'s and right.
  [[nodiscard]] bool is_signed_by(KeyUsage signer, const PublicKey& key) const;

  // Into the first free slot. The certificate must have one.
  void sign(KeyUsage signer, KeyAlgorithm algorithm, const PrivateKey& key);

 private:
  Certificate(std::span<const std::byte, kCertificateSize> bytes, PublicKey key);

  std::array<std::byte, kCertificateSize> bytes_{};
  PublicKey key_;
};

// Of AMD's keys ARK and ASK: RSA with 2048 or 4096 bits.
class RootCertificate {
 public:
  using KeyId = std::array<std::byte, 16>;
  static constexpr std::size_t kLargestSize = 1600;  // bytes; of 4096 bits

  // Takes the certificate that `bytes` begins with; size() says how long it is. Throws Error (kBadUsage).
  [[nodiscard]] static RootCertificate parse(std::span<const std::byte> bytes, std::string_view what);
  // Signed by `signer`, whose own id is `signer_id`.
  [[nodiscard]] static RootCertificate make(KeyUsage usage, const KeyId& id, const PrivateKey& key,
                                            const KeyId& signer_id, const PrivateKey& signer);

  [[nodiscard]] std::span<const std::byte> bytes() const noexcept { return bytes_; }
  [[nodiscard]] std::size_t size() const noexcept { return bytes_.size(); }
  [[nodiscard]] KeyUsage usage() const noexcept;
  [[nodiscard]] KeyId id() const noexcept;
  [[nodiscard]] KeyId signer_id() const noexcept;
  [[nodiscard]] unsigned bits() const noexcept;
  [[nodiscard]] const PublicKey& key() const noexcept { return key_; }
  [[nodiscard]] bool is_signed_by(const RootCertificate& signer) const;

 private:
  RootCertificate(std::span<const std::byte> bytes, PublicKey key)
      : bytes_(bytes.begin(), bytes.end()), key_(std::move(key)) {}

  std::vector<std::byte> bytes_;
  PublicKey key_;
};

}  // namespace sevisor::sev
