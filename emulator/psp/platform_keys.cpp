#include "emulator/psp/platform_keys.hpp"

#include <algorithm>
#include <string_view>
#include <utility>

#include "base/bytes.hpp"
#include "base/error.hpp"
#include "emulator/psp/secure_processor.hpp"
#include "sev/crypto.hpp"
#include "sev/sha256.hpp"

namespace sevisor::emulator {

using sev::Certificate;
using sev::KeyAlgorithm;
using sev::KeyUsage;
using sev::PrivateKey;

namespace {

// NVRAM: the magic, certificates of OCA, PEK and PDH, private numbers of PEK, PDH and, if the platform is nobody's,
// OCA; SHA-256 of all that.
constexpr std::string_view kMagic = "sevisor-nvram-1\n";
constexpr std::size_t kScalarSize = sev::kMaxCoordinateSize;  // of P-384

class Reader {
 public:
  explicit Reader(std::span<const std::byte> bytes) : rest_(bytes) {}

  // Empty when there are not as many.
  std::span<const std::byte> take(std::size_t size) {
    if (size > rest_.size()) return {};
    return std::exchange(rest_, rest_.subspan(size)).first(size);
  }
  std::optional<Certificate> certificate(const char* what) {
    try {
      return Certificate::parse(take(sev::kCertificateSize), what);
    } catch (const Error&) {
      return std::nullopt;
    }
  }
  std::optional<PrivateKey> key() { return PrivateKey::of_scalar(sev::Curve::kP384, take(kScalarSize)); }
  [[nodiscard]] bool at_end() const noexcept { return rest_.empty(); }

 private:
  std::span<const std::byte> rest_;
};

}  // namespace

Certificate make_platform_certificate(KeyUsage usage, KeyAlgorithm algorithm, const PrivateKey& key) {
  return Certificate::make(usage, algorithm, key, SecureProcessor::kApi.major, SecureProcessor::kApi.minor);
}

void replace_pdh(PlatformKeys& keys, PrivateKey pdh_key) {
  keys.pdh_key = std::move(pdh_key);
  keys.pdh = make_platform_certificate(KeyUsage::kPdh, KeyAlgorithm::kEcdhSha256, keys.pdh_key);
  keys.pdh.sign(KeyUsage::kPek, KeyAlgorithm::kEcdsaSha256, keys.pek_key);
}

PlatformKeys make_platform_keys(const ChipKeys& chip, const KeySource& new_key) {
  const PrivateKey pdh_key = new_key();
  const PrivateKey pek_key = new_key();
  const PrivateKey oca_key = new_key();
  Certificate oca = make_platform_certificate(KeyUsage::kOca, KeyAlgorithm::kEcdsaSha256, oca_key);
  oca.sign(KeyUsage::kOca, KeyAlgorithm::kEcdsaSha256, oca_key);
  Certificate pek = make_platform_certificate(KeyUsage::kPek, KeyAlgorithm::kEcdsaSha256, pek_key);
  pek.sign(KeyUsage::kOca, KeyAlgorithm::kEcdsaSha256, oca_key);
  pek.sign(KeyUsage::kCek, KeyAlgorithm::kEcdsaSha256, chip.cek_key);
  const Certificate pdh = make_platform_certificate(KeyUsage::kPdh, KeyAlgorithm::kEcdhSha256, pdh_key);
  PlatformKeys keys{oca, oca_key, pek, pek_key, pdh, pdh_key};
  replace_pdh(keys, pdh_key);
  return keys;
}

Certificate make_signing_request(const PlatformKeys& keys) {
  return make_platform_certificate(KeyUsage::kPek, KeyAlgorithm::kEcdsaSha256, keys.pek_key);
}

sev::SecretBytes encode_keys(const PlatformKeys& keys) {
  const std::size_t scalars = keys.oca_key ? 3 : 2;
  const std::size_t content = kMagic.size() + 3 * sev::kCertificateSize + scalars * kScalarSize;
  sev::SecretBytes out(content + sizeof(sev::Digest));
  std::byte* at = out.data();
  const auto append = [&at](std::span<const std::byte> bytes) { at = std::copy(bytes.begin(), bytes.end(), at); };
  append(std::as_bytes(std::span(kMagic)));
  for (const Certificate* certificate : {&keys.oca, &keys.pek, &keys.pdh}) append(certificate->bytes());
  append(keys.pek_key.scalar());
  append(keys.pdh_key.scalar());
  if (keys.oca_key) append(keys.oca_key->scalar());
  append(sev::sha256(std::span(out).first(content)));
  return out;
}

std::optional<PlatformKeys> decode_keys(std::span<const std::byte> bytes, const ChipKeys& chip) {
  if (bytes.size() < sizeof(sev::Digest)) return std::nullopt;
  const auto content = bytes.first(bytes.size() - sizeof(sev::Digest));
  if (!sev::same_bytes(sev::sha256(content), bytes.subspan(content.size()))) return std::nullopt;
  Reader reader(content);
  if (!std::ranges::equal(reader.take(kMagic.size()), std::as_bytes(std::span(kMagic)))) return std::nullopt;
  const auto oca = reader.certificate("OCA");
  const auto pek = reader.certificate("PEK");
  const auto pdh = reader.certificate("PDH");
  if (!oca || !pek || !pdh) return std::nullopt;
  auto pek_key = reader.key();
  auto pdh_key = reader.key();
  if (!pek_key || !pdh_key || !pek->is_signed_by(KeyUsage::kCek, chip.cek.key())) return std::nullopt;
  std::optional<PrivateKey> oca_key;
  if (!reader.at_end()) {
    oca_key = reader.key();
    if (!oca_key || !reader.at_end()) return std::nullopt;
  }
  return PlatformKeys{*oca, std::move(oca_key), *pek, *std::move(pek_key), *pdh, *std::move(pdh_key)};
}

}  // namespace sevisor::emulator
