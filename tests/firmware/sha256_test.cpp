// Known answers: FIPS 180-4's examples (NIST "SHA256.pdf"), and the lengths around a block against OpenSSL through
// sev/.
#include "firmware/sha256.hpp"

#include <catch2/catch.hpp>
#include <cpuid.h>
#include <string_view>
#include <vector>

#include "firmware/sha256_ni.hpp"
#include "sev/encoding.hpp"
#include "sev/sha256.hpp"

namespace {
using namespace sevisor;

// Both ways, if this machine has both.
std::vector<firmware::Sha256Blocks> ways() {
  std::vector<firmware::Sha256Blocks> found{firmware::sha256_blocks};
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d) != 0 && (b & 1U << 29) != 0) found.push_back(firmware::sha256_blocks_ni);
  if (found.size() == 1) WARN("this machine has no SHA extensions: only the plain way is tested");
  return found;
}

std::string hex_of(std::string_view text, firmware::Sha256Blocks way) {
  return sev::to_hex(firmware::sha256(std::as_bytes(std::span(text.data(), text.size())), way));
}

TEST_CASE("NIST's examples of SHA-256", "[firmware][sha256]") {
  const auto way = GENERATE(from_range(ways()));
  CHECK(hex_of("", way) == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  CHECK(hex_of("abc", way) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  CHECK(hex_of("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", way) ==
        "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  CHECK(hex_of(std::string(1'000'000, 'a'), way) == "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST_CASE("every length and every split gives what OpenSSL gives", "[firmware][sha256]") {
  const auto way = GENERATE(from_range(ways()));
  std::vector<std::byte> bytes(300);
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(i * 7 + 3);
  for (std::size_t length = 0; length <= bytes.size(); ++length) {
    const auto message = std::span<const std::byte>(bytes).first(length);
    const auto expected = sev::sha256(message);
    for (const std::size_t split : {std::size_t{0}, length / 3, length / 2, length}) {
      firmware::Sha256 hash(way);
      hash.update(message.first(split));
      hash.update(message.subspan(split));
      const auto digest = hash.finish();
      REQUIRE(std::equal(digest.begin(), digest.end(), expected.begin(), expected.end()));
    }
  }
}
}  // namespace
