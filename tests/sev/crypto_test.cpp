// Key derivation, sessions and AES, by known answers.
#include "sev/crypto.hpp"

#include <catch2/catch.hpp>

#include "sev/encoding.hpp"
#include "sev/session.hpp"

using namespace sevisor::sev;

namespace {

// Unit tests of the sev crate (virtee): everything zero.
constexpr const char* kMaster = "ab4d269fcc62bedb4511d56c386ce706";
constexpr const char* kSession =
    "000000000000000000000000000000002137bc7f9bb8bd7c3e55a576a15d3454b3856b8ba27afadf46dcfee9f02c02c4"
    "000000000000000000000000000000003176c0752738bd9d5e86689534020f528c088f16238826b000b327dee6aeed7d"
    "aa7855e13839dd767cd5da7c1ff5036540c9264b7a803029315e55375287b4af";

}  // namespace

TEST_CASE("the sev crate's keys and session of zeros") {
  const std::array<std::byte, 16> zero{};
  const auto master = session_master_secret(zero, zero);
  CHECK(to_hex(*master) == kMaster);
  CHECK(to_hex(make_session(*master, zero, zero, {}, 0)) == kSession);
}

TEST_CASE("AES-128-CTR") {
  // NIST SP 800-38A F.5.1, first two blocks.
  Key128 key;
  std::ranges::copy(from_hex("2b7e151628aed2a6abf7158809cf4f3c").value(), key.begin());
  const auto iv = from_hex("f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff").value();
  const auto plain = from_hex("6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51").value();
  std::array<std::byte, 32> secret;
  aes128_ctr(key, std::span(iv).first<16>(), plain, secret);
  CHECK(to_hex(secret) == "874d6191b620e3261bef6864990db6ce9806f66b7970fdff8617187bb9fffdff");
}
