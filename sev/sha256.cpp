#include "sev/sha256.hpp"

#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdexcept>

namespace sevisor::sev {

namespace {

// These calls fail only when memory is exhausted or OpenSSL is broken: nothing a caller could act on.
void require(bool ok) {
  if (!ok) throw std::runtime_error("OpenSSL failed to compute SHA-256");
}

}  // namespace

struct Sha256::Context {
  EVP_MD_CTX* evp = EVP_MD_CTX_new();
  Context() { require(evp != nullptr); }
  ~Context() { EVP_MD_CTX_free(evp); }
  Context(const Context&) = delete;
  Context& operator=(const Context&) = delete;
};

Sha256::Sha256() : context_(std::make_unique<Context>()) {
  require(EVP_DigestInit_ex(context_->evp, EVP_sha256(), nullptr) == 1);
}
Sha256::~Sha256() = default;
Sha256::Sha256(Sha256&&) noexcept = default;
Sha256& Sha256::operator=(Sha256&&) noexcept = default;

void Sha256::update(std::span<const std::byte> bytes) {
  require(EVP_DigestUpdate(context_->evp, bytes.data(), bytes.size()) == 1);
}

Digest Sha256::finish() {
  Digest digest;
  require(EVP_DigestFinal_ex(context_->evp, reinterpret_cast<unsigned char*>(digest.data()), nullptr) == 1);
  return digest;
}

Digest Sha256::peek() const {
  Context copy;
  require(EVP_MD_CTX_copy_ex(copy.evp, context_->evp) == 1);
  Digest digest;
  require(EVP_DigestFinal_ex(copy.evp, reinterpret_cast<unsigned char*>(digest.data()), nullptr) == 1);
  return digest;
}

Sha256 Sha256::fork() const {
  Sha256 copy;
  require(EVP_MD_CTX_copy_ex(copy.context_->evp, context_->evp) == 1);
  return copy;
}

Digest sha256(std::span<const std::byte> bytes) {
  Sha256 hash;
  hash.update(bytes);
  return hash.finish();
}

void hmac_sha256(std::span<const std::byte> key, std::span<const std::byte> bytes, Digest& out) {
  unsigned length = 0;
  require(HMAC(EVP_sha256(), key.data(), static_cast<int>(key.size()),
               reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size(),
               reinterpret_cast<unsigned char*>(out.data()), &length) != nullptr &&
          length == out.size());
}

Digest hmac_sha256(std::span<const std::byte> key, std::span<const std::byte> bytes) {
  Digest digest;
  hmac_sha256(key, bytes, digest);
  return digest;
}

}  // namespace sevisor::sev
