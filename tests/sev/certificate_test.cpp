// Public keys, certificates and chains: known answers of others, and what a certificate must not get through with.
#include "sev/certificate.hpp"

#include <algorithm>
#include <catch2/catch.hpp>
#include <string>
#include <vector>

#include "base/bytes.hpp"
#include "base/error.hpp"
#include "sev/certificate_chain.hpp"
#include "sev/encoding.hpp"
#include "sev/public_key.hpp"

using namespace sevisor;
using namespace sevisor::sev;

namespace {

// RFC 5903 section 8.2: the private number i, the other side's point gr, and the shared secret.
const char* const kKeyScalar =
    "099f3c7034d4a2c699884d73a375a67f7624ef7c6b3c0f160647b67414dce655e35b538041e649ee3faef896783ab194";
const char* const kPeerX =
    "e558dbef53eecde3d3fccfc1aea08a89a987475d12fd950d83cfa41732bc509d0d1ac43a0336def96fda41d0774a3571";
const char* const kPeerY =
    "dcfbec7aacf3196472169e838430367f66eebe3c6e70c416dd5f0c68759dd1fff83fa40142209dff5eaad96db9e6386c";
const char* const kShared =
    "11187331c279962d93d604243fd592cb9d0a926f422e47187521287e7156c5c4d603135569b9e9d09cf5d4a270f59746";

// Signatures over "sample" with SHA-256 that python3-cryptography made: ECDSA with the key above; RSA-PSS, salt of 20
// bytes, exponent 65537.
const char* const kEcdsaR =
    "de17f21cf3c4a2886503e9ef2b1e7fedb79f660cabcbe8985f4843e0138155ac891c4686989c68f9b715ec62d58891d8";
const char* const kEcdsaS =
    "967ccd4147fc051328c01e6e8fe07eb8fd38a04e6600311c69660b950a39fa015110752026fc1819593c1831e67dd311";
const char* const kRsaModulus =
    "ed99817acb5d5db590d445b912ee516d2b62d652da0726234914508232002755ef49a859d89b5629ea3a7c25409ea9b8"
    "724dbd8ae15fa61e86e1f310e0761af738a01563b0e79bb3f87fbc0f05f12bf080fcec8c6e53a1cf51a54c504533b841"
    "e78ba6777ab2eba1bc8ee69081ed49c278f8d2f8e40b3b3b97659a40ecc0cb6659a62ed4ad1b62b1469b3820e92729ed"
    "774e54c11a7868e8da4769a8d2c6bfc27596b4b7b629367fa07bb032f3410d7a9bec486122db70649d7b450b708a23f1"
    "5e6a36ab6b466a302ca68cc17d2119819c27992ad265cb7008d3c0327c9b7040faf9891b8cf983a044bf77a91a69c1e7"
    "0eb7cbcc1adbe75022078b75335e3499";
const char* const kPssSignature =
    "b5d2da68f92c57a689625a6025638b6ab3189e5fbfaf9c72716513216e1414bdb10ae1251411c0a38ebbb54d14704b61"
    "e9bf106e1af75524193ef61ea0e09189d295e2166094effd1699aa95228775499a5d4db3fec6d852f6e16b2de52823ae"
    "783b28dd1e7221e3a69fd7a9974eb2bf60a442c09cf6ea3f745f7e94bd8ba0878a958578d47ebcf52f76fb2127f8e08c"
    "ca97e52975c7e700c83144e598f326ea44f22cf0eb351f988f363aa41b885f0450fe1ff2914dc9618a5be9f8c5925290"
    "60daf4c9c43c46ecbc9cb59127eda9d12836618473c4d21914c2d88992bd5d872102bbc805d7d4fb433d081066a2d656"
    "1f3d63bb9d5d19c07c397a29cc5cc755";

std::vector<std::byte> reversed(const char* hex) {
  auto bytes = from_hex(hex).value();
  std::ranges::reverse(bytes);
  return bytes;
}
void put(std::array<std::byte, 72>& field, const char* hex) { std::ranges::copy(reversed(hex), field.begin()); }

const std::string kSample = "sample";
std::span<const std::byte> sample() { return std::as_bytes(std::span(kSample)); }

PrivateKey known_key() { return PrivateKey::of_scalar(Curve::kP384, from_hex(kKeyScalar).value()).value(); }

}  // namespace

TEST_CASE("ECDH gives the shared secret of RFC 5903") {
  EcPoint peer;
  put(peer.x, kPeerX);
  put(peer.y, kPeerY);
  const auto key = PublicKey::of(peer);
  REQUIRE(key);
  const auto shared = known_key().shared_secret(*key);
  REQUIRE(shared);
  CHECK(to_hex(*shared) == kShared);
  // Another curve's point, and no point at all.
  CHECK_FALSE(known_key().shared_secret(PrivateKey::make_ec(Curve::kP256).public_key()));
  for (auto* coordinate : {&peer.x, &peer.y}) {
    EcPoint bad = peer;
    ((coordinate == &peer.x) ? bad.x : bad.y)[0] ^= std::byte{1};
    CHECK_FALSE(PublicKey::of(bad));
    bad = peer;
    ((coordinate == &peer.x) ? bad.x : bad.y)[48] = std::byte{1};  // beyond the curve's size
    CHECK_FALSE(PublicKey::of(bad));
  }
  CHECK_FALSE(PublicKey::of(EcPoint{}));
}

TEST_CASE("signatures of others verify, and not with one bit changed") {
  EcSignature signature;
  put(signature.r, kEcdsaR);
  put(signature.s, kEcdsaS);
  const PublicKey key = known_key().public_key();
  CHECK(key.verify(HashKind::kSha256, sample(), signature));
  CHECK_FALSE(key.verify(HashKind::kSha384, sample(), signature));
  CHECK_FALSE(key.verify(HashKind::kSha256, sample().first(5), signature));
  CHECK_FALSE(key.verify(HashKind::kSha256, sample(), EcSignature{}));
  signature.s[70] = std::byte{1};
  CHECK_FALSE(key.verify(HashKind::kSha256, sample(), signature));

  const auto rsa = PublicKey::of(RsaNumbers{reversed(kRsaModulus), {std::byte{1}, std::byte{0}, std::byte{1}}});
  REQUIRE(rsa);
  auto pss = reversed(kPssSignature);
  CHECK(rsa->verify_pss(HashKind::kSha256, sample(), pss));
  CHECK_FALSE(rsa->verify_pss(HashKind::kSha384, sample(), pss));
  CHECK_FALSE(rsa->verify_pss(HashKind::kSha256, sample(), std::span(pss).first(255)));
  CHECK_FALSE(key.verify_pss(HashKind::kSha256, sample(), pss));
  pss[100] ^= std::byte{4};
  CHECK_FALSE(rsa->verify_pss(HashKind::kSha256, sample(), pss));
}

TEST_CASE("a certificate has the API document's layout") {
  Certificate certificate = Certificate::make(KeyUsage::kPdh, KeyAlgorithm::kEcdhSha256, known_key(), 1, 55);
  const auto bytes = certificate.bytes();
  const auto word = [&](std::size_t at) { return load<std::uint32_t>(&bytes[at]); };
  CHECK(bytes.size() == 2084);
  CHECK(word(0) == 1);
  CHECK(word(4) == 0x00003701);  // API 1.55
  CHECK(word(8) == 0x1003);      // PDH
  CHECK(word(12) == 3);          // ECDH, SHA-256
  CHECK(word(16) == 2);          // P-384
  // The low ends of gix and giy.
  CHECK(bytes[20] == std::byte{0xaa});
  CHECK(bytes[92] == std::byte{0x1c});
  CHECK(word(1044) == 0x1000);  // both signatures are absent
  CHECK(word(1564) == 0x1000);
  CHECK(certificate.signers().empty());
  CHECK_FALSE(certificate.is_signed_by(KeyUsage::kPek, certificate.key()));

  certificate.sign(KeyUsage::kPek, KeyAlgorithm::kEcdsaSha256, known_key());
  const PrivateKey rsa = PrivateKey::make_rsa(2048);
  certificate.sign(KeyUsage::kAsk, KeyAlgorithm::kRsaSha256, rsa);
  CHECK(certificate.signers() == std::vector<KeyUsage>{KeyUsage::kPek, KeyUsage::kAsk});
  const Certificate read = Certificate::parse(certificate.bytes(), "PDH");
  CHECK(read.is_signed_by(KeyUsage::kPek, known_key().public_key()));
  CHECK(read.is_signed_by(KeyUsage::kAsk, rsa.public_key()));
  CHECK_FALSE(read.is_signed_by(KeyUsage::kAsk, known_key().public_key()));
  CHECK_FALSE(read.is_signed_by(KeyUsage::kOca, known_key().public_key()));
}

TEST_CASE("malformed certificates are refused") {
  const Certificate certificate = Certificate::make(KeyUsage::kPdh, KeyAlgorithm::kEcdhSha256, known_key(), 1, 55);
  const auto refused = [&](std::size_t at, std::byte value) {
    std::vector<std::byte> bytes(certificate.bytes().begin(), certificate.bytes().end());
    bytes[at] = value;
    CAPTURE(at);
    CHECK_THROWS_AS(Certificate::parse(bytes, "PDH"), Error);
  };
  refused(0, std::byte{2});     // version
  refused(6, std::byte{1});     // reserved
  refused(12, std::byte{9});    // algorithm
  refused(12, std::byte{0});    // none
  refused(12, std::byte{1});    // RSA, with this key
  refused(16, std::byte{3});    // curve
  refused(20, std::byte{0});    // no point of the curve
  refused(68, std::byte{1});    // a coordinate beyond the curve's size
  refused(164, std::byte{1});   // behind the key
  refused(1043, std::byte{1});  // the same, its last byte
  refused(1052, std::byte{1});  // a value of no signature
  refused(2083, std::byte{1});  // the same, its last byte
  for (const std::size_t size : {0U, 16U, 2083U}) {
    CHECK_THROWS_AS(Certificate::parse(certificate.bytes().first(size), "PDH"), Error);
  }
  std::vector<std::byte> longer(2085);
  std::ranges::copy(certificate.bytes(), longer.begin());
  CHECK_THROWS_AS(Certificate::parse(longer, "PDH"), Error);

  const PrivateKey key = PrivateKey::make_rsa(2048);
  const RootCertificate::KeyId id{std::byte{1}};
  const RootCertificate root = RootCertificate::make(KeyUsage::kArk, id, key, id, key);
  CHECK(root.size() == 832);
  CHECK(root.is_signed_by(root));
  CHECK(identify_root(root).kind == RootKind::kUnknown);
  const auto with = [&](std::size_t at, std::uint32_t value) {
    std::vector<std::byte> bytes(root.bytes().begin(), root.bytes().end());
    store(&bytes[at], value);
    return bytes;
  };
  CHECK_NOTHROW(RootCertificate::parse(with(0, 1), "ARK"));
  CHECK_THROWS_AS(RootCertificate::parse(with(0, 2), "ARK"), Error);
  for (const std::uint32_t bits : {0U, 8U, 2047U, 4096U, 0xffffffffU}) {
    CHECK_THROWS_AS(RootCertificate::parse(with(56, bits), "ARK"), Error);
    CHECK_THROWS_AS(RootCertificate::parse(with(60, bits), "ARK"), Error);
  }
  CHECK_THROWS_AS(RootCertificate::parse(root.bytes().first(831), "ARK"), Error);
}

TEST_CASE("a private key is a number below the curve's order") {
  CHECK(to_hex(known_key().scalar()) == kKeyScalar);
  const auto number = from_hex(kKeyScalar).value();
  CHECK_FALSE(PrivateKey::of_scalar(Curve::kP256, number));
  CHECK_FALSE(PrivateKey::of_scalar(Curve::kP384, {}));
  CHECK_FALSE(PrivateKey::of_scalar(Curve::kP384, std::span(number).first(47)));
  CHECK_FALSE(PrivateKey::of_scalar(Curve::kP384, std::vector<std::byte>(48)));
  // RFC 5903 section 3.2: the order of the curve, and one less.
  auto order =
      from_hex("ffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf581a0db248b0a77aecec196accc52973")
          .value();
  CHECK_FALSE(PrivateKey::of_scalar(Curve::kP384, order));
  order[47] = std::byte{0x72};
  CHECK(PrivateKey::of_scalar(Curve::kP384, order));
}
