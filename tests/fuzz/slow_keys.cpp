// The classes get other names here, so that remembered_keys.cpp can have theirs.
#define PublicKey SlowPublicKey
#define PrivateKey SlowPrivateKey
#include "sev/public_key.cpp"
#undef PublicKey
#undef PrivateKey

#include "slow_keys.hpp"

namespace sevisor::fuzz::slow {

namespace {

template <class T>
Key boxed(std::optional<T> key) {
  return key ? std::make_shared<const T>(*std::move(key)) : nullptr;
}
const sev::SlowPublicKey& as_public(const Key& key) { return *static_cast<const sev::SlowPublicKey*>(key.get()); }
const sev::SlowPrivateKey& as_private(const Key& key) { return *static_cast<const sev::SlowPrivateKey*>(key.get()); }

}  // namespace

Key public_key(const sev::EcPoint& point) { return boxed(sev::SlowPublicKey::of(point)); }
Key public_key(const sev::RsaNumbers& numbers) { return boxed(sev::SlowPublicKey::of(numbers)); }
Key public_part(const Key& private_key) { return boxed(std::optional(as_private(private_key).public_key())); }
std::size_t size(const Key& public_key) { return as_public(public_key).size(); }
bool verify(const Key& public_key, sev::HashKind hash, std::span<const std::byte> message,
            const sev::EcSignature& signature) {
  return as_public(public_key).verify(hash, message, signature);
}
bool verify_pss(const Key& public_key, sev::HashKind hash, std::span<const std::byte> message,
                std::span<const std::byte> signature) {
  return as_public(public_key).verify_pss(hash, message, signature);
}

Key make_ec(sev::Curve curve) { return boxed(std::optional(sev::SlowPrivateKey::make_ec(curve))); }
Key make_rsa(unsigned bits) { return boxed(std::optional(sev::SlowPrivateKey::make_rsa(bits))); }
Key of_scalar(sev::Curve curve, std::span<const std::byte> scalar) {
  return boxed(sev::SlowPrivateKey::of_scalar(curve, scalar));
}
sev::EcPoint point(const Key& private_key) { return as_private(private_key).point(); }
sev::RsaNumbers numbers(const Key& private_key) { return as_private(private_key).numbers(); }
sev::SecretBytes scalar(const Key& private_key) { return as_private(private_key).scalar(); }
sev::EcSignature sign(const Key& private_key, sev::HashKind hash, std::span<const std::byte> message) {
  return as_private(private_key).sign(hash, message);
}
std::vector<std::byte> sign_pss(const Key& private_key, sev::HashKind hash, std::span<const std::byte> message) {
  return as_private(private_key).sign_pss(hash, message);
}
std::optional<sev::SecretBytes> shared_secret(const Key& private_key, const Key& peer) {
  return as_private(private_key).shared_secret(as_public(peer));
}

}  // namespace sevisor::fuzz::slow
