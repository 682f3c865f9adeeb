// The certificates of AMD's keys.
#include <algorithm>
#include <fmt/format.h>

#include "base/bytes.hpp"
#include "base/error.hpp"
#include "sev/certificate.hpp"

namespace sevisor::sev {

namespace {

constexpr std::uint32_t kVersion = 1;

// Fields, bytes from the certificate's start.
constexpr std::size_t kKeyIdAt = 4;
constexpr std::size_t kSignerIdAt = 20;
constexpr std::size_t kUsageAt = 36;
constexpr std::size_t kExponentBitsAt = 56;
constexpr std::size_t kModulusBitsAt = 60;
constexpr std::size_t kHeaderSize = 64;  // exponent, modulus and signature follow, each as long as its bits say

[[noreturn]] void refuse(std::string_view what, std::string came_back) {
  throw Error(ExitCode::kBadUsage, fmt::format("read the certificate of the {}", what), std::move(came_back));
}

std::uint32_t word_at(std::span<const std::byte> bytes, std::size_t at) { return load<std::uint32_t>(&bytes[at]); }

HashKind hash_for(unsigned bits) { return bits == 2048 ? HashKind::kSha256 : HashKind::kSha384; }

RootCertificate::KeyId id_at(std::span<const std::byte> bytes, std::size_t at) {
  RootCertificate::KeyId id;
  std::copy_n(bytes.begin() + static_cast<std::ptrdiff_t>(at), id.size(), id.begin());
  return id;
}

}  // namespace

RootCertificate RootCertificate::parse(std::span<const std::byte> bytes, std::string_view what) {
  if (bytes.size() < kHeaderSize)
    refuse(what, fmt::format("it has {} bytes, at least {} are needed", bytes.size(), kHeaderSize));
  if (word_at(bytes, 0) != kVersion)
    refuse(what, fmt::format("its version is {}, not {}", word_at(bytes, 0), kVersion));
  const std::uint32_t bits = word_at(bytes, kModulusBitsAt);
  if (bits != 2048 && bits != 4096) refuse(what, fmt::format("its key has {} bits, not 2048 or 4096", bits));
  if (word_at(bytes, kExponentBitsAt) != bits) {
    refuse(what, fmt::format("its exponent takes {} bits, not {}", word_at(bytes, kExponentBitsAt), bits));
  }
  const std::size_t number = bits / 8;
  const std::size_t size = kHeaderSize + 3 * number;
  if (bytes.size() < size) refuse(what, fmt::format("it has {} bytes, not {}", bytes.size(), size));
  const auto exponent = bytes.subspan(kHeaderSize, number);
  const auto modulus = bytes.subspan(kHeaderSize + number, number);
  auto key = PublicKey::of(RsaNumbers{{modulus.begin(), modulus.end()}, {exponent.begin(), exponent.end()}});
  if (!key) refuse(what, "what it has for a key is none");
  return {bytes.first(size), *std::move(key)};
}

RootCertificate RootCertificate::make(KeyUsage usage, const KeyId& id, const PrivateKey& key, const KeyId& signer_id,
                                      const PrivateKey& signer) {
  const RsaNumbers numbers = key.numbers();
  const auto bits = static_cast<std::uint32_t>(numbers.modulus.size() * 8);
  std::vector<std::byte> bytes(kHeaderSize);
  store(&bytes[0], kVersion);
  std::ranges::copy(id, &bytes[kKeyIdAt]);
  std::ranges::copy(signer_id, &bytes[kSignerIdAt]);
  store(&bytes[kUsageAt], static_cast<std::uint32_t>(usage));
  store(&bytes[kExponentBitsAt], bits);
  store(&bytes[kModulusBitsAt], bits);
  bytes.insert(bytes.end(), numbers.exponent.begin(), numbers.exponent.end());
  bytes.insert(bytes.end(), numbers.modulus.begin(), numbers.modulus.end());
  const std::vector<std::byte> signature = signer.sign_pss(hash_for(bits), bytes);
  bytes.insert(bytes.end(), signature.begin(), signature.end());
  return {bytes, key.public_key()};
}

KeyUsage RootCertificate::usage() const noexcept { return static_cast<KeyUsage>(word_at(bytes_, kUsageAt)); }
RootCertificate::KeyId RootCertificate::id() const noexcept { return id_at(bytes_, kKeyIdAt); }
RootCertificate::KeyId RootCertificate::signer_id() const noexcept { return id_at(bytes_, kSignerIdAt); }
unsigned RootCertificate::bits() const noexcept { return word_at(bytes_, kModulusBitsAt); }

bool RootCertificate::is_signed_by(const RootCertificate& signer) const {
  const std::size_t number = bits() / 8;
  const auto message = std::span(bytes_).first(bytes_.size() - number);
  return signer_id() == signer.id() && signer.bits() == bits() &&
         signer.key().verify_pss(hash_for(bits()), message, std::span(bytes_).last(number));
}

}  // namespace sevisor::sev
