// Certificates: the input is one of a platform or guest owner, or one of AMD's keys.
#include "sev/certificate.hpp"

#include <algorithm>

#include "base/error.hpp"
#include "check.hpp"
#include "sev/certificate_chain.hpp"

using namespace sevisor;

namespace {

void read_platform(std::span<const std::byte> bytes) {
  try {
    const sev::Certificate certificate = sev::Certificate::parse(bytes, "fuzz");
    FUZZ_CHECK(std::ranges::equal(certificate.bytes(), bytes));
    (void)sev::key_usage_text(certificate.usage());
    (void)sev::key_algorithm_text(certificate.algorithm());
    for (const sev::KeyUsage signer : certificate.signers()) (void)certificate.is_signed_by(signer, certificate.key());
  } catch (const Error&) {
  }
}

void read_key(std::span<const std::byte> bytes) {
  if (const auto key = sev::PrivateKey::of_scalar(sev::Curve::kP384, bytes)) {
    FUZZ_CHECK(std::ranges::equal(key->scalar(), bytes));
  }
}

void read_root(std::span<const std::byte> bytes) {
  try {
    const sev::RootCertificate certificate = sev::RootCertificate::parse(bytes, "fuzz");
    FUZZ_CHECK(certificate.size() <= bytes.size());
    (void)certificate.is_signed_by(certificate);
    (void)sev::identify_root(certificate);
  } catch (const Error&) {
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::span bytes(reinterpret_cast<const std::byte*>(data), size);
  read_platform(bytes);
  read_root(bytes);
  read_key(bytes.first(std::min<std::size_t>(size, sev::kMaxCoordinateSize)));
  // The mutator seldom finds the size by itself.
  std::vector<std::byte> padded(sev::kCertificateSize);
  std::copy_n(bytes.begin(), std::min(size, padded.size()), padded.begin());
  read_platform(padded);
  padded.resize(sev::RootCertificate::kLargestSize);
  read_root(padded);
  return 0;
}
