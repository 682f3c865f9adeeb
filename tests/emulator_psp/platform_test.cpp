// The platform's keys and who owns it: PEK_GEN, PEK_CSR, PEK_CERT_IMPORT, PDH_GEN, GET_ID, PLATFORM_RESET.
#include <algorithm>
#include <catch2/catch.hpp>
#include <vector>

#include "sev/certificate_chain.hpp"
#include "tests/emulator_psp/fixture.hpp"

using namespace sevisor;
using namespace sevisor::emulator;
using namespace sevisor::test;
using sev::Certificate;
using sev::KeyUsage;

namespace {

struct Platform : PspFixture {
  Platform() { REQUIRE(init() == Status::kSuccess); }

  sev::PlatformCertificates exported() {
    std::vector<std::byte> pdh(sev::kCertificateSize);
    std::vector<std::byte> chain(sev::kPlatformCertificatesSize);
    psp::PdhCertExport command{};
    command.pdh_address = address_of(pdh.data());
    command.pdh_length = static_cast<std::uint32_t>(pdh.size());
    command.chain_address = address_of(chain.data());
    command.chain_length = static_cast<std::uint32_t>(chain.size());
    REQUIRE(psp.run(Command::kPdhCertExport, command) == Status::kSuccess);
    return sev::parse_platform_certificates(pdh, chain);
  }
  Certificate request() {
    std::vector<std::byte> bytes(sev::kCertificateSize);
    psp::OneBuffer command{.address = address_of(bytes.data()), .length = static_cast<std::uint32_t>(bytes.size())};
    REQUIRE(psp.run(Command::kPekCsr, command) == Status::kSuccess);
    return Certificate::parse(bytes, "CSR");
  }
  Status import(std::span<const std::byte> pek, std::span<const std::byte> oca) {
    psp::PekCertImport command{.pek_address = address_of(pek.data()),
                               .pek_length = static_cast<std::uint32_t>(pek.size()),
                               .reserved = 0,
                               .oca_address = address_of(oca.data()),
                               .oca_length = static_cast<std::uint32_t>(oca.size())};
    return psp.run(Command::kPekCertImport, command);
  }
  std::uint32_t flags() {
    psp::PlatformStatus platform{};
    REQUIRE(psp.run(Command::kPlatformStatus, platform) == Status::kSuccess);
    return platform.flags;
  }
};

struct Owner {
  sev::PrivateKey key = sev::PrivateKey::make_ec(sev::Curve::kP384);
  Certificate certificate = make();
  Certificate make() const {
    Certificate oca = Certificate::make(KeyUsage::kOca, sev::KeyAlgorithm::kEcdsaSha256, key, 1, 55);
    oca.sign(KeyUsage::kOca, sev::KeyAlgorithm::kEcdsaSha256, key);
    return oca;
  }
};

bool same(const Certificate& a, const Certificate& b) { return std::ranges::equal(a.bytes(), b.bytes()); }

}  // namespace

TEST_CASE_METHOD(Platform, "an owner signs the platform's request, and the platform is theirs") {
  psp::OneBuffer query{};
  CHECK(psp.run(Command::kPekCsr, query) == Status::kInvalidLength);
  CHECK(+query.length == 2084);
  CHECK(psp.run(Command::kPekCsr, query) == Status::kInvalidAddress);

  const sev::PlatformCertificates before = exported();
  Certificate pek = request();
  CHECK(pek.signers().empty());
  CHECK(pek.usage() == KeyUsage::kPek);
  const Owner owner;
  const Owner other;
  CHECK(import(pek.bytes(), owner.certificate.bytes()) == Status::kInvalidCertificate);  // unsigned
  pek.sign(KeyUsage::kOca, sev::KeyAlgorithm::kEcdsaSha256, owner.key);
  CHECK(import(pek.bytes(), other.certificate.bytes()) == Status::kBadSignature);
  CHECK(import(pek.bytes().first(2083), owner.certificate.bytes()) == Status::kInvalidLength);
  CHECK(import(pek.bytes(), pek.bytes()) == Status::kInvalidCertificate);
  Certificate foreign = Certificate::make(KeyUsage::kPek, sev::KeyAlgorithm::kEcdsaSha256, other.key, 1, 55);
  foreign.sign(KeyUsage::kOca, sev::KeyAlgorithm::kEcdsaSha256, owner.key);
  CHECK(import(foreign.bytes(), owner.certificate.bytes()) == Status::kInvalidCertificate);
  CHECK(flags() == psp::kStatusEs);
  REQUIRE(import(pek.bytes(), owner.certificate.bytes()) == Status::kSuccess);
  CHECK(flags() == (psp::kStatusEs | psp::kStatusOwned));

  const sev::PlatformCertificates after = exported();
  CHECK(same(after.oca, owner.certificate));
  CHECK(after.pek.is_signed_by(KeyUsage::kOca, owner.certificate.key()));
  CHECK(after.pek.is_signed_by(KeyUsage::kCek, after.cek.key()));
  CHECK(same(after.pdh, before.pdh));
  // It stays so until a reset.
  CHECK(import(pek.bytes(), owner.certificate.bytes()) == Status::kAlreadyOwned);
  CHECK(psp.run(Command::kPekGen) == Status::kAlreadyOwned);
  CHECK(psp.run(Command::kPekCsr, query) == Status::kAlreadyOwned);
  REQUIRE(psp.run(Command::kShutdown) == Status::kSuccess);
  REQUIRE(init() == Status::kSuccess);
  CHECK(flags() == (psp::kStatusEs | psp::kStatusOwned));
  CHECK(psp.run(Command::kPlatformReset) == Status::kInvalidPlatformState);
  REQUIRE(psp.run(Command::kShutdown) == Status::kSuccess);
  REQUIRE(psp.run(Command::kPlatformReset) == Status::kSuccess);
  REQUIRE(init() == Status::kSuccess);
  CHECK(flags() == psp::kStatusEs);
  CHECK_FALSE(same(exported().pek, after.pek));
  CHECK(same(exported().cek, after.cek));
}

TEST_CASE_METHOD(Platform, "PEK_GEN and PDH_GEN make new keys, in the states that allow it") {
  const sev::PlatformCertificates first = exported();
  REQUIRE(psp.run(Command::kPdhGen) == Status::kSuccess);
  const sev::PlatformCertificates second = exported();
  CHECK_FALSE(same(first.pdh, second.pdh));
  CHECK(same(first.pek, second.pek));
  CHECK(second.pdh.is_signed_by(KeyUsage::kPek, second.pek.key()));
  REQUIRE(psp.run(Command::kPekGen) == Status::kSuccess);
  const sev::PlatformCertificates third = exported();
  CHECK_FALSE(same(second.pek, third.pek));
  CHECK_FALSE(same(second.oca, third.oca));
  CHECK(third.pdh.is_signed_by(KeyUsage::kPek, third.pek.key()));
  CHECK(same(first.cek, third.cek));
  REQUIRE(start() != 0);  // the platform works
  CHECK(psp.run(Command::kPekGen) == Status::kInvalidPlatformState);
  CHECK(psp.run(Command::kPdhGen) == Status::kSuccess);
}

TEST_CASE_METHOD(Platform, "GET_ID names the chip, in every state") {
  std::array<std::byte, 64> id{};
  psp::OneBuffer command{};
  CHECK(psp.run(Command::kGetId, command) == Status::kInvalidLength);
  CHECK(+command.length == 64);
  CHECK(psp.run(Command::kGetId, command) == Status::kInvalidAddress);
  command.address = address_of(id.data());
  CHECK(psp.run(Command::kGetId, command) == Status::kSuccess);
  const auto first = id;
  CHECK(std::ranges::count(id, std::byte{0}) < 8);
  REQUIRE(psp.run(Command::kShutdown) == Status::kSuccess);
  CHECK(psp.run(Command::kGetId, command) == Status::kSuccess);
  CHECK(id == first);
}
