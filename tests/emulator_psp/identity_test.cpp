// The emulated platform's identity: a chain that verifies, a PDH that sessions are made with, and its export.
#include <algorithm>
#include <catch2/catch.hpp>
#include <cstring>
#include <filesystem>
#include <vector>

#include "base/error.hpp"
#include "emulator/psp/platform_identity.hpp"
#include "sev/session.hpp"
#include "tests/emulator_psp/fixture.hpp"

using namespace sevisor;
using namespace sevisor::emulator;
using sevisor::test::FlippingMemory;
using Status = sev::FirmwareStatus;
using psp::Command;

namespace {

std::uint64_t address(const void* pointer) { return reinterpret_cast<std::uintptr_t>(pointer); }

std::shared_ptr<const PlatformIdentity> identity() {
  static const auto kIdentity = std::make_shared<const PlatformIdentity>(make_platform_identity());
  return kIdentity;
}

}  // namespace

TEST_CASE("the emulated platform's chain verifies, and its root says what it is") {
  const sev::CertificateChain chain = identity()->chain();
  for (const sev::ChainStep& step : sev::check_chain(chain)) {
    CAPTURE(step.text);
    CHECK(step.right);
  }
  CHECK_NOTHROW(sev::require_chain(chain));
  CHECK(sev::identify_root(chain.ark).kind == sev::RootKind::kSoftware);
  const PlatformIdentity other = make_platform_identity();
  CHECK(sev::identify_root(other.chain().ark).fingerprint != sev::identify_root(chain.ark).fingerprint);
  // A link from another chain.
  sev::CertificateChain mixed = chain;
  mixed.pek = other.chain().pek;
  CHECK_THROWS_AS(sev::require_chain(mixed), Error);
  mixed = chain;
  mixed.ask = other.chain().ask;
  CHECK_THROWS_AS(sev::require_chain(mixed), Error);
  mixed = chain;
  mixed.oca = chain.pek;
  CHECK_THROWS_AS(sev::require_chain(mixed), Error);
}

TEST_CASE("PDH_CERT_EXPORT gives the certificates, and first their lengths") {
  FlippingMemory memory;
  SecureProcessor psp(7, {.max_asid = 4, .min_plain_sev_asid = 3}, memory, identity());
  psp::PdhCertExport command{};
  CHECK(psp.run(Command::kPdhCertExport, command) == Status::kInvalidPlatformState);
  psp::Init init{.options = 1, .reserved = 0, .tmr_address = 1 << 20, .tmr_length = 1 << 20};
  REQUIRE(psp.run(Command::kInit, init) == Status::kSuccess);
  CHECK(psp.run(Command::kPdhCertExport, command) == Status::kInvalidLength);
  CHECK(command.pdh_length == 2084);
  CHECK(command.chain_length == 6252);
  CHECK(psp.run(Command::kPdhCertExport, command) == Status::kInvalidAddress);
  std::vector<std::byte> pdh(2084);
  std::vector<std::byte> chain(6252);
  command.pdh_address = address(pdh.data());
  command.chain_address = address(chain.data());
  REQUIRE(psp.run(Command::kPdhCertExport, command) == Status::kSuccess);
  const sev::PlatformCertificates read = sev::parse_platform_certificates(pdh, chain);
  CHECK(std::ranges::equal(read.pdh.bytes(), identity()->chain().pdh.bytes()));
  CHECK(std::ranges::equal(read.pek.bytes(), identity()->chain().pek.bytes()));
  CHECK(std::ranges::equal(read.oca.bytes(), identity()->chain().oca.bytes()));
  CHECK(std::ranges::equal(read.cek.bytes(), identity()->chain().cek.bytes()));

  // Without an identity the chain ends at a CEK that nobody signed.
  SecureProcessor nobody(7, {.max_asid = 4, .min_plain_sev_asid = 3}, memory);
  REQUIRE(nobody.run(Command::kInit, init) == Status::kSuccess);
  REQUIRE(nobody.run(Command::kPdhCertExport, command) == Status::kSuccess);
  const sev::PlatformCertificates seeded = sev::parse_platform_certificates(pdh, chain);
  CHECK(seeded.pdh.is_signed_by(sev::KeyUsage::kPek, seeded.pek.key()));
  CHECK(seeded.pek.is_signed_by(sev::KeyUsage::kCek, seeded.cek.key()));
  CHECK(seeded.cek.signers().empty());
}

TEST_CASE("the platform opens sessions for its own PDH, and no others") {
  FlippingMemory memory;
  SecureProcessor psp(7, {.max_asid = 4, .min_plain_sev_asid = 3}, memory, identity());
  psp::Init init{.options = 1, .reserved = 0, .tmr_address = 1 << 20, .tmr_length = 1 << 20};
  REQUIRE(psp.run(Command::kInit, init) == Status::kSuccess);
  const sev::PrivateKey owner = sev::PrivateKey::make_ec(sev::Curve::kP384);
  const sev::Certificate godh =
      sev::Certificate::make(sev::KeyUsage::kPdh, sev::KeyAlgorithm::kEcdhSha256, owner, 1, 55);
  const sev::Nonce nonce{std::byte{1}};
  const sev::Nonce iv{std::byte{2}};
  const auto start = [&](const PlatformIdentity& of, std::uint32_t made_for, std::uint32_t launched_with) {
    const auto shared = owner.shared_secret(of.chain().pdh.key());
    const auto master = sev::session_master_secret(*shared, nonce);
    const sev::Session session = sev::make_session(*master, nonce, iv, sev::make_transport_keys(), made_for);
    psp::LaunchStart command{};
    command.policy = launched_with;
    command.dh_address = address(godh.bytes().data());
    command.dh_length = static_cast<std::uint32_t>(godh.bytes().size());
    command.session_address = address(session.data());
    command.session_length = static_cast<std::uint32_t>(session.size());
    return psp.run(Command::kLaunchStart, command);
  };
  CHECK(start(*identity(), 5, 5) == Status::kSuccess);
  CHECK(start(*identity(), 5, 7) == Status::kBadMeasurement);
  CHECK(start(make_platform_identity(), 5, 5) == Status::kBadMeasurement);
}

TEST_CASE("an identity is kept in its folder, and a damaged one is not used") {
  namespace fs = std::filesystem;
  std::string name = (fs::temp_directory_path() / "sevisor-identity.XXXXXX").string();
  REQUIRE(::mkdtemp(name.data()) != nullptr);
  const std::string folder = name + "/some/where/platform";
  const auto first = load_platform_identity(folder);
  const auto second = load_platform_identity(folder);
  CHECK(std::ranges::equal(first->chain().pdh.bytes(), second->chain().pdh.bytes()));
  CHECK(first->chip.id == second->chip.id);
  // Nothing is left of how it was made.
  CHECK(std::distance(fs::directory_iterator(name + "/some/where"), fs::directory_iterator{}) == 1);
  const auto another = load_platform_identity(name + "/other");
  // Another platform's NVRAM.
  fs::copy_file(name + "/other/nvram", folder + "/nvram", fs::copy_options::overwrite_existing);
  CHECK_THROWS_AS(load_platform_identity(folder)->chain(), Error);
  fs::copy_file(name + "/other/cek.key", folder + "/cek.key", fs::copy_options::overwrite_existing);
  CHECK_THROWS_AS(load_platform_identity(folder), Error);
  fs::copy_file(name + "/other/cek.cert", folder + "/cek.cert", fs::copy_options::overwrite_existing);
  CHECK_NOTHROW(load_platform_identity(folder));
  fs::remove(folder + "/ark.cert");
  CHECK_THROWS_AS(load_platform_identity(folder), Error);
  fs::remove_all(name);
}

TEST_CASE("damaged NVRAM: INIT says so once, and then makes the platform anew") {
  namespace fs = std::filesystem;
  std::string name = (fs::temp_directory_path() / "sevisor-identity.XXXXXX").string();
  REQUIRE(::mkdtemp(name.data()) != nullptr);
  const std::string folder = name + "/platform";
  const auto platform = load_platform_identity(folder);
  const std::string file = folder + "/nvram";
  const auto size = fs::file_size(file);
  const auto init_twice = [&] {
    FlippingMemory memory;
    SecureProcessor psp(7, {.max_asid = 4, .min_plain_sev_asid = 3}, memory, load_platform_identity(folder));
    psp::Init init{.options = 1, .reserved = 0, .tmr_address = 1 << 20, .tmr_length = 1 << 20};
    const Status first = psp.run(Command::kInit, init);
    return std::pair(first, first == Status::kSuccess ? first : psp.run(Command::kInit, init));
  };
  CHECK(init_twice() == std::pair(Status::kSuccess, Status::kSuccess));
  const sev::CertificateChain before = platform->chain();
  for (const std::uintmax_t left : {size - 1, size / 2, std::uintmax_t{1}}) {
    fs::resize_file(file, left);
    CHECK(init_twice() == std::pair(Status::kSecureDataInvalid, Status::kSuccess));
    CHECK(init_twice() == std::pair(Status::kSuccess, Status::kSuccess));
    CHECK_NOTHROW(sev::require_chain(load_platform_identity(folder)->chain()));
  }
  CHECK_FALSE(std::ranges::equal(platform->chain().pdh.bytes(), before.pdh.bytes()));
  CHECK(std::ranges::equal(platform->chain().cek.bytes(), before.cek.bytes()));
  fs::remove(file);  // power-off before anything was written
  CHECK(init_twice() == std::pair(Status::kSuccess, Status::kSuccess));
  // No half-written copies are left.
  CHECK(std::distance(fs::directory_iterator(folder), fs::directory_iterator{}) == 6);
  fs::remove_all(name);
}
