#include "sev/crypto.hpp"

#include <algorithm>
#include <cstdint>
#include <memory>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/rand.h>
#include <stdexcept>
#include <vector>

#include "base/bytes.hpp"
#include "sev/sha256.hpp"

namespace sevisor::sev {

namespace {

// These calls fail only when memory is exhausted or OpenSSL is broken: nothing a caller could act on.
void require(bool ok) {
  if (!ok) throw std::runtime_error("OpenSSL failed");
}

const unsigned char* input(std::span<const std::byte> bytes) {
  return reinterpret_cast<const unsigned char*>(bytes.data());
}
unsigned char* output(std::span<std::byte> bytes) { return reinterpret_cast<unsigned char*>(bytes.data()); }

}  // namespace

void wipe(void* memory, std::size_t size) noexcept { OPENSSL_cleanse(memory, size); }

Wiped<Key128> derive_key(std::span<const std::byte> key, std::string_view label, std::span<const std::byte> context) {
  constexpr std::uint32_t kFirstBlock = 1;
  constexpr std::uint32_t kBits = 128;
  std::vector<std::byte> text(4);
  store(text.data(), kFirstBlock);
  for (const char c : label) text.push_back(static_cast<std::byte>(c));
  text.push_back(std::byte{0});
  text.insert(text.end(), context.begin(), context.end());
  text.resize(text.size() + 4);
  store(text.data() + text.size() - 4, kBits);
  Wiped<Digest> block;
  hmac_sha256(key, text, *block);
  Wiped<Key128> derived;
  std::copy_n(block->begin(), derived->size(), derived->begin());
  return derived;
}

void aes128_ctr(const Key128& key, std::span<const std::byte, 16> iv, std::span<const std::byte> in,
                std::span<std::byte> out) {
  require(in.size() == out.size() && in.size() <= INT32_MAX);
  const std::unique_ptr<EVP_CIPHER_CTX, decltype(&EVP_CIPHER_CTX_free)> context(EVP_CIPHER_CTX_new(),
                                                                                EVP_CIPHER_CTX_free);
  require(context && EVP_EncryptInit_ex(context.get(), EVP_aes_128_ctr(), nullptr, input(key), input(iv)) == 1);
  int done = 0;
  require(EVP_EncryptUpdate(context.get(), output(out), &done, input(in), static_cast<int>(in.size())) == 1);
  require(done == static_cast<int>(in.size()));
}

bool same_bytes(std::span<const std::byte> a, std::span<const std::byte> b) {
  return a.size() == b.size() && CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0;
}

void fill_random(std::span<std::byte> out) { require(RAND_priv_bytes_ex(nullptr, output(out), out.size(), 0) == 1); }

}  // namespace sevisor::sev
