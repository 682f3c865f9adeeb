#include "sev/certificate.hpp"

#include <algorithm>
#include <fmt/format.h>
#include <iterator>

#include "base/bytes.hpp"
#include "base/error.hpp"

namespace sevisor::sev {

namespace {

constexpr std::uint32_t kVersion = 1;

// Fields, bytes from the certificate's start.
constexpr std::size_t kApiMajorAt = 4;
constexpr std::size_t kApiMinorAt = 5;
constexpr std::size_t kReservedAt = 6;
constexpr std::size_t kUsageAt = 8;
constexpr std::size_t kAlgorithmAt = 12;
constexpr std::size_t kKeyAt = 16;
constexpr std::size_t kSignaturesAt = 1044;  // what is before is signed
constexpr std::size_t kSignatureSlots = 2;
constexpr std::size_t kSignatureSize = 4 + 4 + 512;  // usage, algorithm, value
static_assert(kSignaturesAt + kSignatureSlots * kSignatureSize == kCertificateSize);

// A key: of RSA its size in bits, exponent and modulus; of EC the curve and a point.
constexpr std::size_t kRsaNumberSize = 512;
constexpr std::size_t kCoordinateSize = 72;

enum class KeyKind : std::uint8_t { kNone, kRsa, kEcdsa, kEcdh };
struct AlgorithmRow {
  KeyAlgorithm algorithm;
  KeyKind kind;
  HashKind hash;
  const char* text;
};
constexpr AlgorithmRow kAlgorithms[] = {
    {KeyAlgorithm::kNone, KeyKind::kNone, HashKind::kSha256, "none"},
    {KeyAlgorithm::kRsaSha256, KeyKind::kRsa, HashKind::kSha256, "RSA, SHA-256"},
    {KeyAlgorithm::kEcdsaSha256, KeyKind::kEcdsa, HashKind::kSha256, "ECDSA, SHA-256"},
    {KeyAlgorithm::kEcdhSha256, KeyKind::kEcdh, HashKind::kSha256, "ECDH, SHA-256"},
    {KeyAlgorithm::kRsaSha384, KeyKind::kRsa, HashKind::kSha384, "RSA, SHA-384"},
    {KeyAlgorithm::kEcdsaSha384, KeyKind::kEcdsa, HashKind::kSha384, "ECDSA, SHA-384"},
    {KeyAlgorithm::kEcdhSha384, KeyKind::kEcdh, HashKind::kSha384, "ECDH, SHA-384"},
};
const AlgorithmRow* find_algorithm(KeyAlgorithm algorithm) {
  const auto* found = std::find_if(std::begin(kAlgorithms), std::end(kAlgorithms),
                                   [algorithm](const AlgorithmRow& row) { return row.algorithm == algorithm; });
  return found == std::end(kAlgorithms) ? nullptr : found;
}

struct UsageName {
  KeyUsage usage;
  const char* name;
};
constexpr UsageName kUsageNames[] = {{KeyUsage::kArk, "ARK"}, {KeyUsage::kAsk, "ASK"}, {KeyUsage::kInvalid, "invalid"},
                                     {KeyUsage::kOca, "OCA"}, {KeyUsage::kPek, "PEK"}, {KeyUsage::kPdh, "PDH"},
                                     {KeyUsage::kCek, "CEK"}};

[[noreturn]] void refuse(std::string_view what, std::string came_back) {
  throw Error(ExitCode::kBadUsage, fmt::format("read the certificate of the {}", what), std::move(came_back));
}

std::uint32_t word_at(std::span<const std::byte> bytes, std::size_t at) { return load<std::uint32_t>(&bytes[at]); }

std::optional<PublicKey> key_in(std::span<const std::byte> certificate, KeyKind kind) {
  const std::span<const std::byte> field = certificate.subspan(kKeyAt);
  if (kind == KeyKind::kRsa) {
    const std::size_t bits = word_at(field, 0);
    if (bits != 2048 && bits != 4096) return std::nullopt;
    const auto exponent = field.subspan(4, kRsaNumberSize);
    const auto modulus = field.subspan(4 + kRsaNumberSize, kRsaNumberSize);
    return PublicKey::of(RsaNumbers{{modulus.begin(), modulus.begin() + static_cast<std::ptrdiff_t>(bits / 8)},
                                    {exponent.begin(), exponent.end()}});
  }
  const std::uint32_t curve = word_at(field, 0);
  if (curve != static_cast<std::uint32_t>(Curve::kP256) && curve != static_cast<std::uint32_t>(Curve::kP384)) {
    return std::nullopt;
  }
  EcPoint point;
  point.curve = static_cast<Curve>(curve);
  std::copy_n(field.begin() + 4, kCoordinateSize, point.x.begin());
  std::copy_n(field.begin() + 4 + kCoordinateSize, kCoordinateSize, point.y.begin());
  return PublicKey::of(point);
}

// What a key or a signature takes, bytes; what is behind it means nothing.
std::size_t key_size(KeyKind kind) { return kind == KeyKind::kRsa ? 4 + 2 * kRsaNumberSize : 4 + 2 * kCoordinateSize; }
std::size_t signature_size(KeyKind kind) { return kind == KeyKind::kRsa ? kRsaNumberSize : 2 * kCoordinateSize; }

void require_zero(std::span<const std::byte> bytes, std::size_t begin, std::size_t end, std::string_view what) {
  for (std::size_t at = begin; at < end; ++at) {
    if (bytes[at] != std::byte{0}) refuse(what, fmt::format("its byte {} must be 0 and is not", at));
  }
}

// It holds a signature, or the number for none and otherwise zeros, or zeros alone.
void require_signature_slot(std::span<const std::byte> bytes, std::size_t slot, std::string_view what) {
  const std::size_t at = kSignaturesAt + slot * kSignatureSize;
  const std::uint32_t usage = word_at(bytes, at);
  const std::uint32_t algorithm = word_at(bytes, at + 4);
  const bool absent = algorithm == static_cast<std::uint32_t>(KeyAlgorithm::kNone);
  const AlgorithmRow* row = find_algorithm(static_cast<KeyAlgorithm>(algorithm));
  const bool can_sign = row != nullptr && (row->kind == KeyKind::kRsa || row->kind == KeyKind::kEcdsa);
  const bool is_none = usage == static_cast<std::uint32_t>(KeyUsage::kInvalid);
  if (absent ? !is_none && usage != 0 : !can_sign || is_none) {
    refuse(what, fmt::format("its signature {} is neither one nor absent: usage {:#x}, algorithm {:#x}", slot + 1,
                             usage, algorithm));
  }
  require_zero(bytes, at + 8 + (absent ? 0 : signature_size(row->kind)), at + kSignatureSize, what);
}

bool slot_is_right(std::span<const std::byte> certificate, std::span<const std::byte> slot, const PublicKey& key) {
  const AlgorithmRow* row = find_algorithm(static_cast<KeyAlgorithm>(word_at(slot, 4)));
  const auto signed_part = certificate.first(kSignaturesAt);
  const auto value = slot.subspan(8);
  if (row != nullptr && row->kind == KeyKind::kRsa) {
    // As long as the modulus, zeros above.
    const auto is_zero = [](std::byte b) { return b == std::byte{0}; };
    const std::size_t size = key.size();
    return size <= value.size() && key.verify_pss(row->hash, signed_part, value.first(size)) &&
           std::ranges::all_of(value.subspan(size), is_zero);
  }
  if (row == nullptr || row->kind != KeyKind::kEcdsa) return false;
  EcSignature signature;
  std::copy_n(value.begin(), kCoordinateSize, signature.r.begin());
  std::copy_n(value.begin() + kCoordinateSize, kCoordinateSize, signature.s.begin());
  return key.verify(row->hash, signed_part, signature);
}

}  // namespace

std::string key_usage_text(KeyUsage usage) {
  for (const UsageName& entry : kUsageNames) {
    if (entry.usage == usage) return entry.name;
  }
  return fmt::format("usage {:#x}", static_cast<std::uint32_t>(usage));
}

std::string key_algorithm_text(KeyAlgorithm algorithm) {
  const AlgorithmRow* row = find_algorithm(algorithm);
  return row != nullptr ? row->text : fmt::format("algorithm {:#x}", static_cast<std::uint32_t>(algorithm));
}

Certificate::Certificate(std::span<const std::byte, kCertificateSize> bytes, PublicKey key) : key_(std::move(key)) {
  std::copy(bytes.begin(), bytes.end(), bytes_.begin());
}

Certificate Certificate::parse(std::span<const std::byte> bytes, std::string_view what) {
  if (bytes.size() != kCertificateSize) {
    refuse(what, fmt::format("it has {} bytes, not {}", bytes.size(), kCertificateSize));
  }
  if (word_at(bytes, 0) != kVersion)
    refuse(what, fmt::format("its version is {}, not {}", word_at(bytes, 0), kVersion));
  const auto algorithm = static_cast<KeyAlgorithm>(word_at(bytes, kAlgorithmAt));
  const AlgorithmRow* row = find_algorithm(algorithm);
  if (row == nullptr || row->kind == KeyKind::kNone) {
    refuse(what, fmt::format("its key's algorithm is unknown ({:#x})", word_at(bytes, kAlgorithmAt)));
  }
  std::optional<PublicKey> key = key_in(bytes, row->kind);
  if (!key) refuse(what, fmt::format("what it has for a key ({}) is none", row->text));
  require_zero(bytes, kReservedAt, kUsageAt, what);
  require_zero(bytes, kKeyAt + key_size(row->kind), kSignaturesAt, what);
  for (std::size_t slot = 0; slot < kSignatureSlots; ++slot) require_signature_slot(bytes, slot, what);
  return {bytes.first<kCertificateSize>(), *std::move(key)};
}

Certificate Certificate::make(KeyUsage usage, KeyAlgorithm algorithm, const PrivateKey& key, std::uint8_t api_major,
                              std::uint8_t api_minor) {
  std::array<std::byte, kCertificateSize> bytes{};
  store(&bytes[0], kVersion);
  bytes[kApiMajorAt] = static_cast<std::byte>(api_major);
  bytes[kApiMinorAt] = static_cast<std::byte>(api_minor);
  store(&bytes[kUsageAt], static_cast<std::uint32_t>(usage));
  store(&bytes[kAlgorithmAt], static_cast<std::uint32_t>(algorithm));
  const PublicKey public_key = key.public_key();
  if (public_key.is_rsa()) {
    const RsaNumbers numbers = key.numbers();
    store(&bytes[kKeyAt], static_cast<std::uint32_t>(numbers.modulus.size() * 8));
    std::ranges::copy(numbers.exponent, &bytes[kKeyAt + 4]);
    std::ranges::copy(numbers.modulus, &bytes[kKeyAt + 4 + kRsaNumberSize]);
  } else {
    const EcPoint point = key.point();
    store(&bytes[kKeyAt], static_cast<std::uint32_t>(point.curve));
    std::ranges::copy(point.x, &bytes[kKeyAt + 4]);
    std::ranges::copy(point.y, &bytes[kKeyAt + 4 + kCoordinateSize]);
  }
  for (std::size_t slot = 0; slot < kSignatureSlots; ++slot) {
    store(&bytes[kSignaturesAt + slot * kSignatureSize], static_cast<std::uint32_t>(KeyUsage::kInvalid));
  }
  return {bytes, public_key};
}

std::uint8_t Certificate::api_major() const noexcept { return std::to_integer<std::uint8_t>(bytes_[kApiMajorAt]); }
std::uint8_t Certificate::api_minor() const noexcept { return std::to_integer<std::uint8_t>(bytes_[kApiMinorAt]); }
KeyUsage Certificate::usage() const noexcept { return static_cast<KeyUsage>(word_at(bytes_, kUsageAt)); }
KeyAlgorithm Certificate::algorithm() const noexcept {
  return static_cast<KeyAlgorithm>(word_at(bytes_, kAlgorithmAt));
}

std::vector<KeyUsage> Certificate::signers() const {
  std::vector<KeyUsage> signers;
  for (std::size_t slot = 0; slot < kSignatureSlots; ++slot) {
    const std::size_t at = kSignaturesAt + slot * kSignatureSize;
    const auto usage = static_cast<KeyUsage>(word_at(bytes_, at));
    const auto algorithm = static_cast<KeyAlgorithm>(word_at(bytes_, at + 4));
    if (usage != KeyUsage::kInvalid && algorithm != KeyAlgorithm::kNone) signers.push_back(usage);
  }
  return signers;
}

bool Certificate::is_signed_by(KeyUsage signer, const PublicKey& key) const {
  for (std::size_t slot = 0; slot < kSignatureSlots; ++slot) {
    const auto bytes = std::span(bytes_).subspan(kSignaturesAt + slot * kSignatureSize, kSignatureSize);
    if (static_cast<KeyUsage>(word_at(bytes, 0)) == signer && slot_is_right(bytes_, bytes, key)) return true;
  }
  return false;
}

void Certificate::sign(KeyUsage signer, KeyAlgorithm algorithm, const PrivateKey& key) {
  const AlgorithmRow& row = *find_algorithm(algorithm);
  std::size_t at = kSignaturesAt;
  if (static_cast<KeyUsage>(word_at(bytes_, at)) != KeyUsage::kInvalid) at += kSignatureSize;
  store(&bytes_[at], static_cast<std::uint32_t>(signer));
  store(&bytes_[at + 4], static_cast<std::uint32_t>(algorithm));
  const auto signed_part = std::span(bytes_).first<kSignaturesAt>();
  if (row.kind == KeyKind::kRsa) {
    std::ranges::copy(key.sign_pss(row.hash, signed_part), &bytes_[at + 8]);
    return;
  }
  const EcSignature signature = key.sign(row.hash, signed_part);
  std::ranges::copy(signature.r, &bytes_[at + 8]);
  std::ranges::copy(signature.s, &bytes_[at + 8 + kCoordinateSize]);
}

}  // namespace sevisor::sev
