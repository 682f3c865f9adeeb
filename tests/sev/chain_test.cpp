// Chains of certificates: of AMD's machines, and that a change of any byte breaks them.
#include <algorithm>
#include <catch2/catch.hpp>
#include <fstream>
#include <functional>
#include <iterator>
#include <string>
#include <vector>

#include "base/error.hpp"
#include "sev/certificate_chain.hpp"

using namespace sevisor;
using namespace sevisor::sev;

namespace {

using Bytes = std::vector<std::byte>;

Bytes read(const std::string& machine, const char* name) {
  std::ifstream file(std::string(SEVISOR_SOURCE_DIR) + "/tests/data/certificates/" + machine + "/" + name,
                     std::ios::binary);
  REQUIRE(file);
  const std::vector<char> chars{std::istreambuf_iterator<char>(file), {}};
  const auto view = std::as_bytes(std::span(chars));
  return {view.begin(), view.end()};
}

CertificateChain chain_of(const std::string& machine) {
  const auto root = [&](const char* name, const char* what) {
    return RootCertificate::parse(read(machine, name), what);
  };
  const auto certificate = [&](const char* name, const char* what) {
    return Certificate::parse(read(machine, name), what);
  };
  return {root("ark.cert", "ARK"),        root("ask.cert", "ASK"),        certificate("cek.cert", "CEK"),
          certificate("oca.cert", "OCA"), certificate("pek.cert", "PEK"), certificate("pdh.cert", "PDH")};
}

// Changes each byte by one bit, a different one from byte to byte. `holds`: what must not be so any more; it may throw.
void check_each_byte(std::span<const std::byte> good, const std::function<bool(std::span<const std::byte>)>& holds) {
  REQUIRE(holds(good));
  Bytes bytes(good.begin(), good.end());
  std::vector<std::size_t> unnoticed;
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    bytes[i] ^= static_cast<std::byte>(1U << i % 8);
    try {
      if (holds(bytes)) unnoticed.push_back(i);
    } catch (const Error&) {
    }
    bytes[i] = good[i];
  }
  CHECK(unnoticed == std::vector<std::size_t>{});
}

}  // namespace

TEST_CASE("the chains of two AMD machines are right, up to AMD's roots") {
  for (const std::string machine : {"naples", "rome"}) {
    CAPTURE(machine);
    CertificateChain chain = chain_of(machine);
    for (const ChainStep& step : check_chain(chain)) {
      CAPTURE(step.text);
      CHECK(step.right);
    }
    CHECK_NOTHROW(require_chain(chain));
    CHECK(identify_root(chain.ark).kind == RootKind::kAmd);
  }
  CHECK_THAT(identify_root(chain_of("naples").ark).text, Catch::Contains("Naples"));
  CHECK_THAT(identify_root(chain_of("rome").ark).text, Catch::Contains("Rome"));
  // A link of another machine.
  CertificateChain mixed = chain_of("naples");
  mixed.pek = chain_of("rome").pek;
  CHECK_THROWS_AS(require_chain(mixed), Error);
}

TEST_CASE("one changed byte anywhere in a chain is noticed") {
  const CertificateChain chain = chain_of("naples");
  const auto certificate = [](std::span<const std::byte> bytes) { return Certificate::parse(bytes, "changed"); };
  check_each_byte(chain.ark.bytes(), [](std::span<const std::byte> bytes) {
    const RootCertificate ark = RootCertificate::parse(bytes, "ARK");
    return ark.is_signed_by(ark) && identify_root(ark).kind == RootKind::kAmd;
  });
  check_each_byte(chain.ask.bytes(), [&](std::span<const std::byte> bytes) {
    return RootCertificate::parse(bytes, "ASK").is_signed_by(chain.ark);
  });
  check_each_byte(chain.cek.bytes(), [&](std::span<const std::byte> bytes) {
    return certificate(bytes).is_signed_by(KeyUsage::kAsk, chain.ask.key());
  });
  check_each_byte(chain.oca.bytes(), [&](std::span<const std::byte> bytes) {
    const Certificate oca = certificate(bytes);
    return oca.is_signed_by(KeyUsage::kOca, oca.key());
  });
  check_each_byte(chain.pek.bytes(), [&](std::span<const std::byte> bytes) {
    const Certificate pek = certificate(bytes);
    return pek.is_signed_by(KeyUsage::kOca, chain.oca.key()) && pek.is_signed_by(KeyUsage::kCek, chain.cek.key());
  });
  check_each_byte(chain.pdh.bytes(), [&](std::span<const std::byte> bytes) {
    return certificate(bytes).is_signed_by(KeyUsage::kPek, chain.pek.key());
  });
}

TEST_CASE("one changed byte anywhere in an owner's certificate is noticed") {
  const PrivateKey owner = PrivateKey::make_ec(Curve::kP384);
  Certificate godh = Certificate::make(KeyUsage::kPdh, KeyAlgorithm::kEcdhSha256, owner, 1, 55);
  godh.sign(KeyUsage::kPek, KeyAlgorithm::kEcdsaSha256, owner);
  // As `sevisor run` looks at it: a signature may be absent, but not there and wrong.
  check_each_byte(godh.bytes(), [](std::span<const std::byte> bytes) {
    const Certificate read = Certificate::parse(bytes, "owner");
    return read.usage() == KeyUsage::kPdh && (read.signers().empty() || read.is_signed_by(KeyUsage::kPek, read.key()));
  });
}
