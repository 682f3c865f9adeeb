// Known answers: FIPS 180-4's examples (NIST "SHA256.pdf"), and the lengths around a block against OpenSSL through
// sev/.
#include "firmware/sha256.hpp"

#include <catch2/catch.hpp>
#include <string_view>
#include <vector>

#include "sev/encoding.hpp"
#include "sev/sha256.hpp"

namespace {
using namespace sevisor;

std::string hex_of(std::string_view text) {
  return sev::to_hex(firmware::sha256(std::as_bytes(std::span(text.data(), text.size()))));
}

TEST_CASE("NIST's examples of SHA-256", "[firmware][sha256]") {
  CHECK(hex_of("") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  CHECK(hex_of("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  CHECK(hex_of("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq") ==
        "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  CHECK(hex_of(std::string(1'000'000, 'a')) == "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST_CASE("every length and every split gives what OpenSSL gives", "[firmware][sha256]") {
  std::vector<std::byte> bytes(300);
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(i * 7 + 3);
  for (std::size_t length = 0; length <= bytes.size(); ++length) {
    const auto message = std::span<const std::byte>(bytes).first(length);
    const auto expected = sev::sha256(message);
    for (const std::size_t split : {std::size_t{0}, length / 3, length / 2, length}) {
      firmware::Sha256 hash;
      hash.update(message.first(split));
      hash.update(message.subspan(split));
      const auto digest = hash.finish();
      REQUIRE(std::equal(digest.begin(), digest.end(), expected.begin(), expected.end()));
    }
  }
}
}  // namespace
