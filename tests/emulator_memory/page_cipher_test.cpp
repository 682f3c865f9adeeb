#include "emulator/memory/page_cipher.hpp"

#include <array>
#include <catch2/catch.hpp>
#include <cstring>

using namespace sevisor;
using emulator::PageCipher;

namespace {

using Page = std::array<std::byte, kPageSize>;

std::array<std::byte, 16> filled(unsigned char value) {
  std::array<std::byte, 16> key;
  key.fill(std::byte{value});
  return key;
}

}  // namespace

TEST_CASE("the cipher is AES-128-XTS") {
  // IEEE 1619-2007 annex B, vector 2: key1 11.., key2 22.., data unit 0x3333333333, plaintext 32 bytes of 44.
  PageCipher cipher(filled(0x11), filled(0x22));
  Page plain;
  plain.fill(std::byte{0x44});
  Page secret;
  cipher.encrypt(Spa(0x3333333333), plain, secret);
  const unsigned char expected[32] = {0xc4, 0x54, 0x18, 0x5e, 0x6a, 0x16, 0x93, 0x6e, 0x39, 0x33, 0x40,
                                      0x38, 0xac, 0xef, 0x83, 0x8b, 0xfb, 0x18, 0x6f, 0xff, 0x74, 0x80,
                                      0xad, 0xc4, 0x28, 0x93, 0x82, 0xec, 0xd6, 0xd3, 0x94, 0xf0};
  CHECK(std::memcmp(secret.data(), expected, sizeof expected) == 0);
}

TEST_CASE("a changed block of plaintext changes its block of ciphertext only") {
  PageCipher cipher(filled(1), filled(2));
  Page plain{};
  Page first;
  Page second;
  cipher.encrypt(Spa(0x5000), plain, first);
  plain[0x123] = std::byte{1};
  cipher.encrypt(Spa(0x5000), plain, second);
  for (std::size_t block = 0; block < kPageSize; block += 16) {
    const bool same = std::memcmp(&first[block], &second[block], 16) == 0;
    CHECK(same == (block != 0x120));
  }
}

TEST_CASE("ciphertext means something at its own address and under its own key only") {
  PageCipher cipher(filled(1), filled(2));
  PageCipher other(filled(3), filled(4));
  Page plain{};
  std::memcpy(plain.data(), "a secret of the guest", 21);
  Page secret;
  Page back;
  cipher.encrypt(Spa(0x5000), plain, secret);
  CHECK(secret != plain);
  cipher.decrypt(Spa(0x5000), secret, back);
  CHECK(back == plain);
  cipher.decrypt(Spa(0x6000), secret, back);
  CHECK(back != plain);
  other.decrypt(Spa(0x5000), secret, back);
  CHECK(back != plain);
}
