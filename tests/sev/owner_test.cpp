// Sessions, keys and secrets, against values that other programs computed (tests/data/measurement/measurement.json).
#include <algorithm>
#include <catch2/catch.hpp>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/error.hpp"
#include "sev/encoding.hpp"
#include "sev/launch_secret.hpp"
#include "sev/session.hpp"
#include "sev/verification.hpp"

using namespace sevisor;
using namespace sevisor::sev;
using nlohmann::json;

namespace {

const json& vectors() {
  static const json kVectors =
      json::parse(std::ifstream(std::string(SEVISOR_SOURCE_DIR) + "/tests/data/measurement/measurement.json"));
  return kVectors;
}

template <class Array>
Array array_of(const json& hex) {
  const auto bytes = from_hex(hex.get<std::string>()).value();
  Array array{};
  REQUIRE(bytes.size() == array.size());
  std::ranges::copy(bytes, array.begin());
  return array;
}

TransportKeys keys_of(const json& vector) {
  TransportKeys keys;
  *keys.tek = array_of<TransportKey>(vector["tek"]);
  *keys.tik = array_of<TransportKey>(vector["tik"]);
  return keys;
}

}  // namespace

TEST_CASE("keys are derived and sessions made as the sev crate does") {
  const json& vector = vectors()["kdf_session_vectors"].at(0);
  const auto z = from_hex(vector["z"].get<std::string>()).value();
  const auto nonce = array_of<Nonce>(vector["nonce"]);
  const auto master = session_master_secret(z, nonce);
  CHECK(to_hex(*master) == vector["master_secret"].get<std::string>());
  const TransportKeys keys = keys_of(vector);
  const Session session = make_session(*master, nonce, array_of<Nonce>(vector["iv"]), keys, vector["policy"]);
  CHECK(to_hex(session) == vector["session_128B"].get<std::string>());

  const auto opened = open_session(z, session, vector["policy"]);
  REQUIRE(opened);
  CHECK(*opened->tik == *keys.tik);
  CHECK(*opened->tek == *keys.tek);
  CHECK_FALSE(open_session(z, session, vector["policy"].get<std::uint32_t>() ^ 4));
  // One changed byte anywhere: another master secret, a wrong MAC, or other keys than the policy was signed with.
  for (std::size_t i = 0; i < session.size(); ++i) {
    CAPTURE(i);
    Session other = session;
    other[i] ^= std::byte{0x10};
    CHECK_FALSE(open_session(z, other, vector["policy"]));
  }
}

TEST_CASE("a secret is packed and sealed as sevctl does") {
  const json& vector = vectors()["secret_vectors"].at(0);
  std::vector<SecretEntry> entries;
  for (const json& secret : vector["secrets"]) {
    const auto data = from_hex(secret[1].get<std::string>()).value();
    entries.push_back({parse_secret_name(secret[0].get<std::string>()).value(), SecretBytes(data.begin(), data.end())});
  }
  const SecretBytes table = build_secret_table(entries);
  CHECK(to_hex(table) == vector["plain_table"].get<std::string>());
  Measurement measurement{};
  std::ranges::copy(array_of<Digest>(vector["measure"]), measurement.begin());
  const TransportKeys keys = keys_of(vector);
  const SecretPacket packet = seal_secret(keys, {1, 40, 40}, measurement, array_of<Nonce>(vector["iv"]), table);
  CHECK(to_hex(packet.header) == vector["header_52B"].get<std::string>());
  CHECK(to_hex(packet.payload) == vector["payload"].get<std::string>());

  const auto plain = open_secret(keys, {1, 40, 40}, measurement, packet);
  REQUIRE(plain);
  CHECK(*plain == table);
  const auto read = parse_secret_table(*plain);
  REQUIRE(read.size() == entries.size());
  CHECK(read[0].guid == entries[0].guid);
  CHECK(read[0].data == entries[0].data);
  CHECK_FALSE(open_secret(keys, {0, 16, 0}, measurement, packet));  // an older platform does not bind the launch
}

TEST_CASE("secret tables with lying lengths are refused") {
  const SecretEntry entry{kLuksKeyGuid, SecretBytes(8, std::byte{7})};
  const SecretBytes good = build_secret_table(std::span(&entry, 1));
  CHECK(good.size() == 48);  // virt-qemu-sev-validate 9.0.0 pads this one to 64
  CHECK_NOTHROW(parse_secret_table(good));
  const auto with = [&](std::size_t at, std::byte value) {
    SecretBytes table = good;
    table[at] = value;
    return table;
  };
  CHECK_THROWS_AS(parse_secret_table(with(0, std::byte{0})), Error);
  for (const unsigned total : {0U, 19U, 21U, 47U, 49U, 255U}) {
    CAPTURE(total);
    CHECK_THROWS_AS(parse_secret_table(with(16, static_cast<std::byte>(total))), Error);
  }
  for (const unsigned length : {0U, 19U, 29U, 255U}) {
    CAPTURE(length);
    CHECK_THROWS_AS(parse_secret_table(with(36, static_cast<std::byte>(length))), Error);
  }
  CHECK_THROWS_AS(parse_secret_table(with(19, std::byte{0xff})), Error);
  CHECK_THROWS_AS(parse_secret_table({}), Error);
  CHECK_THROWS_AS(build_secret_table({}), Error);
  const SecretEntry twice[] = {entry, entry};
  CHECK_THROWS_AS(build_secret_table(twice), Error);
  const SecretEntry large{kLuksKeyGuid, SecretBytes(kMaxSecretSize)};
  CHECK_THROWS_AS(build_secret_table(std::span(&large, 1)), Error);
}

TEST_CASE("virt-qemu-sev-validate's cases match, whether or not the kernel is here") {
  // The keys that the cases were made with: bytes 0 to 15.
  TransportKey tik;
  for (std::size_t i = 0; i < tik.size(); ++i) tik[i] = static_cast<std::byte>(i);
  for (const json& vector : vectors()["validate_cases"]) {
    CAPTURE(vector["name"].get<std::string>());
    LaunchClaim claim{.api = {1, 55, 29}, .policy = vector["policy"], .measurement = {}};
    std::ranges::copy(from_base64(vector["measurement_b64"].get<std::string>()).value(), claim.measurement.begin());
    const auto digest = array_of<Digest>(vector["launch_digest"]);
    CHECK(matches(claim, tik, digest));
    claim.api.build = 30;
    CHECK_FALSE(matches(claim, tik, digest));
  }
}

TEST_CASE("base64 is read strictly") {
  // RFC 4648 section 10.
  const std::pair<const char*, const char*> known[] = {{"", ""},
                                                       {"Zg==", "66"},
                                                       {"Zm8=", "666f"},
                                                       {"Zm9v", "666f6f"},
                                                       {"Zm9vYg==", "666f6f62"},
                                                       {"Zm9vYmE=", "666f6f6261"},
                                                       {"Zm9vYmFy", "666f6f626172"}};
  for (const auto& [text, hex] : known) {
    REQUIRE(from_base64(text));
    CHECK(to_hex(*from_base64(text)) == hex);
    CHECK(to_base64(from_hex(hex).value()) == text);
  }
  for (const char* text : {"Zg", "Zg=", "Zh==", "Zm9=", "Z===", "====", "Zm9v\n", "Zm9 ", "Zg==Zg==", "Zm-_", "Z"}) {
    CAPTURE(text);
    CHECK_FALSE(from_base64(text));
  }
}
