#include "sev/public_key.hpp"

#include <algorithm>
#include <array>
#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/param_build.h>
#include <openssl/rsa.h>
#include <stdexcept>
#include <string>

namespace sevisor::sev {

namespace {

template <auto Free>
struct Deleter {
  template <class T>
  void operator()(T* object) const noexcept {
    Free(object);
  }
};
using Number = std::unique_ptr<BIGNUM, Deleter<BN_clear_free>>;
using Context = std::unique_ptr<EVP_PKEY_CTX, Deleter<EVP_PKEY_CTX_free>>;
using DigestContext = std::unique_ptr<EVP_MD_CTX, Deleter<EVP_MD_CTX_free>>;
using Builder = std::unique_ptr<OSSL_PARAM_BLD, Deleter<OSSL_PARAM_BLD_free>>;
using Parameters = std::unique_ptr<OSSL_PARAM, Deleter<OSSL_PARAM_free>>;
using Signature = std::unique_ptr<ECDSA_SIG, Deleter<ECDSA_SIG_free>>;
using Group = std::unique_ptr<EC_GROUP, Deleter<EC_GROUP_free>>;
using Point = std::unique_ptr<EC_POINT, Deleter<EC_POINT_free>>;

// These calls fail only when memory is exhausted or OpenSSL is broken: nothing a caller could act on.
void require(bool ok) {
  if (!ok) throw std::runtime_error("OpenSSL failed");
}

EVP_PKEY* raw(const std::shared_ptr<void>& key) { return static_cast<EVP_PKEY*>(key.get()); }
std::shared_ptr<void> owned(EVP_PKEY* key) {
  require(key != nullptr);
  return {key, [](void* p) { EVP_PKEY_free(static_cast<EVP_PKEY*>(p)); }};
}

const unsigned char* input(std::span<const std::byte> bytes) {
  return reinterpret_cast<const unsigned char*>(bytes.data());
}
unsigned char* output(std::span<std::byte> bytes) { return reinterpret_cast<unsigned char*>(bytes.data()); }

Number number_of(std::span<const std::byte> little_endian) {
  Number number(BN_lebin2bn(input(little_endian), static_cast<int>(little_endian.size()), nullptr));
  require(number != nullptr);
  return number;
}
void put_number(const BIGNUM* number, std::span<std::byte> little_endian) {
  require(BN_bn2lebinpad(number, output(little_endian), static_cast<int>(little_endian.size())) >= 0);
}

const char* group_name(Curve curve) { return curve == Curve::kP256 ? "P-256" : "P-384"; }
std::size_t coordinate_size(Curve curve) { return curve == Curve::kP256 ? 32 : 48; }
Curve curve_of(EVP_PKEY* key) { return EVP_PKEY_get_bits(key) <= 256 ? Curve::kP256 : Curve::kP384; }

const EVP_MD* digest_of(HashKind hash) { return hash == HashKind::kSha256 ? EVP_sha256() : EVP_sha384(); }

// Nothing when the parameters are no key.
std::shared_ptr<void> make_key(const char* type, int selection, const OSSL_PARAM* parameters) {
  const Context context(EVP_PKEY_CTX_new_from_name(nullptr, type, nullptr));
  require(context && EVP_PKEY_fromdata_init(context.get()) == 1);
  EVP_PKEY* key = nullptr;
  // It takes them as const in all but name.
  if (EVP_PKEY_fromdata(context.get(), &key, selection, const_cast<OSSL_PARAM*>(parameters)) != 1) return nullptr;
  return owned(key);
}
std::shared_ptr<void> public_key_of(const char* type, const Builder& builder) {
  const Parameters parameters(OSSL_PARAM_BLD_to_param(builder.get()));
  require(parameters != nullptr);
  return make_key(type, EVP_PKEY_PUBLIC_KEY, parameters.get());
}

Number parameter(EVP_PKEY* key, const char* name) {
  BIGNUM* number = nullptr;
  require(EVP_PKEY_get_bn_param(key, name, &number) == 1);
  return Number(number);
}

void use_pss(EVP_PKEY_CTX* context, HashKind hash, int salt) {
  require(EVP_PKEY_CTX_set_rsa_padding(context, RSA_PKCS1_PSS_PADDING) == 1 &&
          EVP_PKEY_CTX_set_rsa_pss_saltlen(context, salt) == 1 &&
          EVP_PKEY_CTX_set_rsa_mgf1_md(context, digest_of(hash)) == 1);
}

}  // namespace

std::optional<PublicKey> PublicKey::of(const EcPoint& point) {
  const std::size_t size = coordinate_size(point.curve);
  const auto is_zero = [](std::byte b) { return b == std::byte{0}; };
  for (const auto* coordinate : {&point.x, &point.y}) {
    if (!std::all_of(coordinate->begin() + static_cast<std::ptrdiff_t>(size), coordinate->end(), is_zero)) {
      return std::nullopt;
    }
  }
  // SEC 1 section 2.3.3: uncompressed.
  std::vector<std::byte> encoded(1 + 2 * size, std::byte{0x04});
  const auto end = static_cast<std::ptrdiff_t>(size);
  std::reverse_copy(point.x.begin(), point.x.begin() + end, encoded.begin() + 1);
  std::reverse_copy(point.y.begin(), point.y.begin() + end, encoded.begin() + 1 + end);
  const Builder builder(OSSL_PARAM_BLD_new());
  require(builder &&
          OSSL_PARAM_BLD_push_utf8_string(builder.get(), OSSL_PKEY_PARAM_GROUP_NAME, group_name(point.curve), 0) == 1 &&
          OSSL_PARAM_BLD_push_octet_string(builder.get(), OSSL_PKEY_PARAM_PUB_KEY, encoded.data(), encoded.size()) ==
              1);
  auto key = public_key_of("EC", builder);
  if (key == nullptr) return std::nullopt;
  const Context check(EVP_PKEY_CTX_new_from_pkey(nullptr, raw(key), nullptr));
  require(check != nullptr);
  if (EVP_PKEY_public_check(check.get()) != 1) return std::nullopt;
  return PublicKey(std::move(key));
}

std::optional<PublicKey> PublicKey::of(const RsaNumbers& numbers) {
  const Number modulus = number_of(numbers.modulus);
  const Number exponent = number_of(numbers.exponent);
  const Builder builder(OSSL_PARAM_BLD_new());
  require(builder && OSSL_PARAM_BLD_push_BN(builder.get(), OSSL_PKEY_PARAM_RSA_N, modulus.get()) == 1 &&
          OSSL_PARAM_BLD_push_BN(builder.get(), OSSL_PKEY_PARAM_RSA_E, exponent.get()) == 1);
  auto key = public_key_of("RSA", builder);
  if (key == nullptr) return std::nullopt;
  return PublicKey(std::move(key));
}

bool PublicKey::is_rsa() const noexcept { return EVP_PKEY_is_a(raw(key_), "RSA") == 1; }

std::size_t PublicKey::size() const noexcept { return static_cast<std::size_t>(EVP_PKEY_get_size(raw(key_))); }

bool PublicKey::verify(HashKind hash, std::span<const std::byte> message, const EcSignature& signature) const {
  if (is_rsa()) return false;
  const Signature sig(ECDSA_SIG_new());
  require(sig && ECDSA_SIG_set0(sig.get(), number_of(signature.r).release(), number_of(signature.s).release()) == 1);
  unsigned char* der = nullptr;
  const int size = i2d_ECDSA_SIG(sig.get(), &der);
  require(size > 0);
  const DigestContext context(EVP_MD_CTX_new());
  require(context && EVP_DigestVerifyInit(context.get(), nullptr, digest_of(hash), nullptr, raw(key_)) == 1);
  const int verdict =
      EVP_DigestVerify(context.get(), der, static_cast<std::size_t>(size), input(message), message.size());
  OPENSSL_free(der);
  return verdict == 1;
}

bool PublicKey::verify_pss(HashKind hash, std::span<const std::byte> message,
                           std::span<const std::byte> signature) const {
  if (!is_rsa() || signature.size() != size()) return false;
  std::vector<std::byte> big_endian(signature.rbegin(), signature.rend());
  const DigestContext context(EVP_MD_CTX_new());
  EVP_PKEY_CTX* parameters = nullptr;
  require(context && EVP_DigestVerifyInit(context.get(), &parameters, digest_of(hash), nullptr, raw(key_)) == 1);
  use_pss(parameters, hash, RSA_PSS_SALTLEN_AUTO);
  return EVP_DigestVerify(context.get(), input(big_endian), big_endian.size(), input(message), message.size()) == 1;
}

PrivateKey PrivateKey::make_ec(Curve curve) { return PrivateKey(owned(EVP_EC_gen(group_name(curve)))); }
PrivateKey PrivateKey::make_rsa(unsigned bits) {
  return PrivateKey(owned(EVP_RSA_gen(static_cast<std::size_t>(bits))));
}

// Not by DER: OpenSSL's encoders and decoders leave copies of the key on the heap.
std::optional<PrivateKey> PrivateKey::of_scalar(Curve curve, std::span<const std::byte> scalar) {
  if (scalar.size() != coordinate_size(curve)) return std::nullopt;
  const Group group(EC_GROUP_new_by_curve_name(EC_curve_nist2nid(group_name(curve))));
  const Number number(BN_bin2bn(input(scalar), static_cast<int>(scalar.size()), nullptr));
  require(group && number);
  if (BN_is_zero(number.get()) || BN_cmp(number.get(), EC_GROUP_get0_order(group.get())) >= 0) return std::nullopt;

  const Point point(EC_POINT_new(group.get()));
  std::vector<unsigned char> encoded(1 + 2 * scalar.size());  // SEC 1 section 2.3.3: uncompressed
  require(point && EC_POINT_mul(group.get(), point.get(), number.get(), nullptr, nullptr, nullptr) == 1 &&
          EC_POINT_point2oct(group.get(), point.get(), POINT_CONVERSION_UNCOMPRESSED, encoded.data(), encoded.size(),
                             nullptr) == encoded.size());

  SecretBytes native(scalar.rbegin(), scalar.rend());  // little-endian, as this machine is
  std::string name = group_name(curve);
  const std::array<OSSL_PARAM, 4> parameters = {
      OSSL_PARAM_construct_utf8_string(OSSL_PKEY_PARAM_GROUP_NAME, name.data(), name.size()),
      OSSL_PARAM_construct_octet_string(OSSL_PKEY_PARAM_PUB_KEY, encoded.data(), encoded.size()),
      OSSL_PARAM_construct_BN(OSSL_PKEY_PARAM_PRIV_KEY, output(native), native.size()), OSSL_PARAM_construct_end()};
  return PrivateKey(make_key("EC", EVP_PKEY_KEYPAIR, parameters.data()));
}

EcPoint PrivateKey::point() const {
  EcPoint point;
  point.curve = curve_of(raw(key_));
  put_number(parameter(raw(key_), OSSL_PKEY_PARAM_EC_PUB_X).get(), point.x);
  put_number(parameter(raw(key_), OSSL_PKEY_PARAM_EC_PUB_Y).get(), point.y);
  return point;
}

RsaNumbers PrivateKey::numbers() const {
  const auto size = static_cast<std::size_t>(EVP_PKEY_get_size(raw(key_)));
  RsaNumbers numbers{std::vector<std::byte>(size), std::vector<std::byte>(size)};
  put_number(parameter(raw(key_), OSSL_PKEY_PARAM_RSA_N).get(), numbers.modulus);
  put_number(parameter(raw(key_), OSSL_PKEY_PARAM_RSA_E).get(), numbers.exponent);
  return numbers;
}

SecretBytes PrivateKey::scalar() const {
  const Number number = parameter(raw(key_), OSSL_PKEY_PARAM_PRIV_KEY);
  SecretBytes bytes(coordinate_size(curve_of(raw(key_))));
  require(BN_bn2binpad(number.get(), output(bytes), static_cast<int>(bytes.size())) >= 0);
  return bytes;
}

EcSignature PrivateKey::sign(HashKind hash, std::span<const std::byte> message) const {
  const DigestContext context(EVP_MD_CTX_new());
  require(context && EVP_DigestSignInit(context.get(), nullptr, digest_of(hash), nullptr, raw(key_)) == 1);
  std::size_t size = 0;
  require(EVP_DigestSign(context.get(), nullptr, &size, input(message), message.size()) == 1);
  std::vector<std::byte> der(size);
  require(EVP_DigestSign(context.get(), output(der), &size, input(message), message.size()) == 1);
  const unsigned char* at = input(der);
  const Signature sig(d2i_ECDSA_SIG(nullptr, &at, static_cast<long>(size)));
  require(sig != nullptr);
  EcSignature signature;
  put_number(ECDSA_SIG_get0_r(sig.get()), signature.r);
  put_number(ECDSA_SIG_get0_s(sig.get()), signature.s);
  return signature;
}

std::vector<std::byte> PrivateKey::sign_pss(HashKind hash, std::span<const std::byte> message) const {
  const DigestContext context(EVP_MD_CTX_new());
  EVP_PKEY_CTX* parameters = nullptr;
  require(context && EVP_DigestSignInit(context.get(), &parameters, digest_of(hash), nullptr, raw(key_)) == 1);
  use_pss(parameters, hash, RSA_PSS_SALTLEN_DIGEST);
  std::vector<std::byte> signature(static_cast<std::size_t>(EVP_PKEY_get_size(raw(key_))));
  std::size_t size = signature.size();
  require(EVP_DigestSign(context.get(), output(signature), &size, input(message), message.size()) == 1);
  std::ranges::reverse(signature);
  return signature;
}

std::optional<SecretBytes> PrivateKey::shared_secret(const PublicKey& peer) const {
  const Context context(EVP_PKEY_CTX_new_from_pkey(nullptr, raw(key_), nullptr));
  require(context && EVP_PKEY_derive_init(context.get()) == 1);
  if (peer.is_rsa() || EVP_PKEY_derive_set_peer(context.get(), raw(peer.key_)) != 1) return std::nullopt;
  std::size_t size = 0;
  require(EVP_PKEY_derive(context.get(), nullptr, &size) == 1);
  SecretBytes secret(size);
  require(EVP_PKEY_derive(context.get(), output(secret), &size) == 1);
  secret.resize(size);
  return secret;
}

}  // namespace sevisor::sev
