#include "emulator/psp/crypto.hpp"

#include <catch2/catch.hpp>
#include <string_view>
#include <vector>

#include "emulator/psp/session.hpp"

using namespace sevisor;
using namespace sevisor::emulator;

namespace {

std::vector<std::byte> from_hex(std::string_view text) {
  std::vector<std::byte> bytes;
  for (std::size_t i = 0; i + 1 < text.size(); i += 2) {
    bytes.push_back(static_cast<std::byte>(std::stoul(std::string(text.substr(i, 2)), nullptr, 16)));
  }
  return bytes;
}

template <std::size_t N>
bool is(const std::array<std::byte, N>& bytes, std::string_view hex) {
  const auto wanted = from_hex(hex);
  return std::equal(bytes.begin(), bytes.end(), wanted.begin(), wanted.end());
}

// Unit tests of the sev crate (virtee): everything zero.
constexpr std::string_view kMaster = "ab4d269fcc62bedb4511d56c386ce706";
constexpr std::string_view kSession =
    "000000000000000000000000000000002137bc7f9bb8bd7c3e55a576a15d3454b3856b8ba27afadf46dcfee9f02c02c4"
    "000000000000000000000000000000003176c0752738bd9d5e86689534020f528c088f16238826b000b327dee6aeed7d"
    "aa7855e13839dd767cd5da7c1ff5036540c9264b7a803029315e55375287b4af";

}  // namespace

TEST_CASE("the master secret is derived as the sev crate derives it") {
  const std::array<std::byte, 16> zero{};
  CHECK(is(derive_key(zero, "sev-master-secret", zero), kMaster));
}

TEST_CASE("a session of the sev crate is unwrapped, and each bit of it counts") {
  Key128 master;
  const auto master_bytes = from_hex(kMaster);
  std::copy(master_bytes.begin(), master_bytes.end(), master.begin());
  auto session = from_hex(kSession);
  REQUIRE(session.size() == kSessionBytes);
  const auto unwrap = [&](std::uint32_t policy) {
    return unwrap_with_master(master, std::span<const std::byte>(session).first<kSessionBytes>(), policy);
  };
  const auto keys = unwrap(0);
  REQUIRE(std::holds_alternative<TransportKeys>(keys));
  CHECK(std::get<TransportKeys>(keys).tek == Key128{});
  CHECK(std::get<TransportKeys>(keys).tik == Key128{});

  CHECK(std::get<sev::FirmwareStatus>(unwrap(4)) == sev::FirmwareStatus::kBadMeasurement);
  for (const std::size_t at : {16u, 47u, 48u, 64u, 95u, 96u, 127u}) {
    session[at] ^= std::byte{1};
    CHECK(std::holds_alternative<sev::FirmwareStatus>(unwrap(0)));
    session[at] ^= std::byte{1};
  }
}

TEST_CASE("AES-128-CTR") {
  // NIST SP 800-38A F.5.1, first two blocks.
  Key128 key;
  const auto key_bytes = from_hex("2b7e151628aed2a6abf7158809cf4f3c");
  std::copy(key_bytes.begin(), key_bytes.end(), key.begin());
  const auto iv = from_hex("f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff");
  const auto plain = from_hex("6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51");
  std::array<std::byte, 32> secret;
  aes128_ctr(key, std::span<const std::byte>(iv).first<16>(), plain, secret);
  CHECK(is(secret, "874d6191b620e3261bef6864990db6ce9806f66b7970fdff8617187bb9fffdff"));
}

TEST_CASE("both ends of an ECDH have the same secret; a point off the curve has none") {
  SeededRandom a(1);
  SeededRandom b(2);
  const P384Key ours(a);
  const P384Key theirs(b);
  CHECK(ours.shared_secret(theirs.public_point()) == theirs.shared_secret(ours.public_point()));
  P384Point off = theirs.public_point();
  off.y[47] ^= std::byte{1};
  CHECK_FALSE(ours.shared_secret(off).has_value());
}

TEST_CASE("the same seed gives the same numbers, another one others") {
  SeededRandom a(5);
  SeededRandom b(5);
  SeededRandom c(6);
  const Key128 first = a.key();
  CHECK(first == b.key());
  CHECK(first != c.key());
  CHECK(first != a.key());
}
