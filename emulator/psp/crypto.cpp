#include "emulator/psp/crypto.hpp"

#include <algorithm>
#include <openssl/bn.h>
#include <openssl/crypto.h>
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/obj_mac.h>
#include <stdexcept>
#include <vector>

#include "base/bytes.hpp"
#include "sev/sha256.hpp"

namespace sevisor::emulator {

namespace {

template <auto Free>
struct Deleter {
  template <class T>
  void operator()(T* object) const noexcept {
    Free(object);
  }
};
using Number = std::unique_ptr<BIGNUM, Deleter<BN_clear_free>>;
using NumberContext = std::unique_ptr<BN_CTX, Deleter<BN_CTX_free>>;
using Group = std::unique_ptr<EC_GROUP, Deleter<EC_GROUP_free>>;
using Point = std::unique_ptr<EC_POINT, Deleter<EC_POINT_free>>;
using CipherContext = std::unique_ptr<EVP_CIPHER_CTX, Deleter<EVP_CIPHER_CTX_free>>;

// These calls fail only when memory is exhausted or OpenSSL is broken: nothing a caller could act on.
void require(bool ok) {
  if (!ok) throw std::runtime_error("OpenSSL failed");
}

const unsigned char* input(std::span<const std::byte> bytes) {
  return reinterpret_cast<const unsigned char*>(bytes.data());
}
unsigned char* output(std::span<std::byte> bytes) { return reinterpret_cast<unsigned char*>(bytes.data()); }

Number number(std::span<const std::byte> big_endian) {
  Number value(BN_bin2bn(input(big_endian), static_cast<int>(big_endian.size()), nullptr));
  require(value != nullptr);
  return value;
}

void coordinates(const EC_GROUP* group, const EC_POINT* point, P384Point& out) {
  const Number x(BN_new());
  const Number y(BN_new());
  require(x && y && EC_POINT_get_affine_coordinates(group, point, x.get(), y.get(), nullptr) == 1);
  require(BN_bn2binpad(x.get(), output(out.x), kP384Bytes) == static_cast<int>(kP384Bytes));
  require(BN_bn2binpad(y.get(), output(out.y), kP384Bytes) == static_cast<int>(kP384Bytes));
}

}  // namespace

void SeededRandom::fill(std::span<std::byte> out) {
  while (!out.empty()) {
    std::array<std::byte, 16> block;
    store(block.data(), seed_);
    store(block.data() + 8, counter_++);
    const sev::Digest digest = sev::sha256(block);
    const std::size_t bytes = std::min(out.size(), digest.size());
    std::copy_n(digest.begin(), bytes, out.begin());
    out = out.subspan(bytes);
  }
}

Key128 derive_key(std::span<const std::byte> key, std::string_view label, std::span<const std::byte> context) {
  constexpr std::uint32_t kFirstBlock = 1;
  constexpr std::uint32_t kBits = 128;
  std::vector<std::byte> text(4);
  store(text.data(), kFirstBlock);
  for (char c : label) text.push_back(static_cast<std::byte>(c));
  text.push_back(std::byte{0});
  text.insert(text.end(), context.begin(), context.end());
  text.resize(text.size() + 4);
  store(text.data() + text.size() - 4, kBits);
  const sev::Digest block = sev::hmac_sha256(key, text);
  Key128 derived;
  std::copy_n(block.begin(), derived.size(), derived.begin());
  return derived;
}

void aes128_ctr(const Key128& key, std::span<const std::byte, 16> iv, std::span<const std::byte> in,
                std::span<std::byte> out) {
  const CipherContext context(EVP_CIPHER_CTX_new());
  require(context && EVP_EncryptInit_ex(context.get(), EVP_aes_128_ctr(), nullptr, input(key), input(iv)) == 1);
  int size = 0;
  require(EVP_EncryptUpdate(context.get(), output(out), &size, input(in), static_cast<int>(in.size())) == 1);
}

bool same_bytes(std::span<const std::byte> a, std::span<const std::byte> b) {
  return a.size() == b.size() && CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0;
}

struct P384Key::Impl {
  Group group{EC_GROUP_new_by_curve_name(NID_secp384r1)};
  Number scalar;
};

P384Key::P384Key(SeededRandom& random) : impl_(std::make_unique<Impl>()) {
  require(impl_->group != nullptr);
  // 64 bits more than the order has, so that the remainder is as good as uniform; then 1 .. order - 1.
  std::array<std::byte, kP384Bytes + 8> bytes;
  random.fill(bytes);
  impl_->scalar = number(bytes);
  const Number range(BN_dup(EC_GROUP_get0_order(impl_->group.get())));
  const NumberContext context(BN_CTX_new());
  require(range && context && BN_sub_word(range.get(), 1) == 1);
  require(BN_mod(impl_->scalar.get(), impl_->scalar.get(), range.get(), context.get()) == 1);
  require(BN_add_word(impl_->scalar.get(), 1) == 1);
  find_public_point();
}

P384Key::P384Key(std::span<const std::byte> scalar) : impl_(std::make_unique<Impl>()) {
  require(impl_->group != nullptr);
  impl_->scalar = number(scalar);
  find_public_point();
}

void P384Key::find_public_point() {
  const NumberContext context(BN_CTX_new());
  const Point point(EC_POINT_new(impl_->group.get()));
  require(context && point &&
          EC_POINT_mul(impl_->group.get(), point.get(), impl_->scalar.get(), nullptr, nullptr, context.get()) == 1);
  coordinates(impl_->group.get(), point.get(), public_point_);
}

P384Key::~P384Key() = default;

std::optional<std::array<std::byte, kP384Bytes>> P384Key::shared_secret(const P384Point& peer) const {
  const EC_GROUP* group = impl_->group.get();
  const Point theirs(EC_POINT_new(group));
  const Point shared(EC_POINT_new(group));
  const NumberContext context(BN_CTX_new());
  require(theirs && shared && context);
  const Number x = number(peer.x);
  const Number y = number(peer.y);
  // Checks that the point is on the curve.
  if (EC_POINT_set_affine_coordinates(group, theirs.get(), x.get(), y.get(), context.get()) != 1) return std::nullopt;
  require(EC_POINT_mul(group, shared.get(), nullptr, theirs.get(), impl_->scalar.get(), context.get()) == 1);
  if (EC_POINT_is_at_infinity(group, shared.get()) == 1) return std::nullopt;
  P384Point point;
  coordinates(group, shared.get(), point);
  return point.x;
}

}  // namespace sevisor::emulator
