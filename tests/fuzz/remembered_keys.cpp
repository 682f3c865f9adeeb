#include "remembered_keys.hpp"

#include <array>
#include <map>
#include <string>
#include <unordered_map>
#include <utility>

#include "sev/public_key.hpp"
#include "slow_keys.hpp"

namespace sevisor {

namespace {

constexpr std::size_t kPoolSize = 16;     // more than an input makes of keys without using one twice
constexpr std::size_t kMostKnown = 4096;  // answers of a kind

// A key, by what its public part is.
struct Known {
  std::string id;
  bool rsa = false;
  fuzz::slow::Key public_key;
  fuzz::slow::Key private_key = nullptr;
};

template <class... Parts>
std::string text_of(const Parts&... parts) {
  std::string text;
  const auto append = [&text](std::span<const std::byte> bytes) {
    const std::size_t size = bytes.size();
    text.append(reinterpret_cast<const char*>(&size), sizeof size);
    text.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  };
  (append(std::as_bytes(std::span(parts))), ...);
  return text;
}
template <class T>
std::span<const T, 1> one(const T& value) {
  return std::span<const T, 1>(&value, 1);
}

// What `work` answered the last time, or now.
template <class Answer, class Work>
const Answer& remember(std::unordered_map<std::string, Answer>& known, std::string question, Work work) {
  if (known.size() >= kMostKnown) known.clear();
  const auto found = known.find(question);
  return found != known.end() ? found->second : known.emplace(std::move(question), work()).first->second;
}

const Known& as_known(const std::shared_ptr<void>& key) { return *static_cast<const Known*>(key.get()); }

std::string id_of(const sev::EcPoint& point) { return text_of(one(point.curve), point.x, point.y); }
std::string id_of(const sev::RsaNumbers& numbers) { return text_of(numbers.modulus, numbers.exponent); }

std::shared_ptr<void> known_private(fuzz::slow::Key key, bool rsa) {
  if (key == nullptr) return nullptr;
  std::string id = rsa ? id_of(fuzz::slow::numbers(key)) : id_of(fuzz::slow::point(key));
  return std::make_shared<Known>(Known{std::move(id), rsa, fuzz::slow::public_part(key), key});
}

template <class Numbers>
std::shared_ptr<void> known_public(const Numbers& numbers, bool rsa) {
  static std::unordered_map<std::string, std::shared_ptr<void>> known;
  const std::string id = id_of(numbers);
  return remember(known, id, [&]() -> std::shared_ptr<void> {
    auto key = fuzz::slow::public_key(numbers);
    return key == nullptr ? nullptr : std::make_shared<Known>(Known{id, rsa, std::move(key)});
  });
}

std::map<sev::Curve, std::size_t>& next_of_pool() {
  static std::map<sev::Curve, std::size_t> next;
  return next;
}

}  // namespace

void fuzz::restart_new_keys() { next_of_pool().clear(); }

namespace sev {

std::optional<PublicKey> PublicKey::of(const EcPoint& point) {
  auto key = known_public(point, false);
  return key == nullptr ? std::nullopt : std::optional(PublicKey(std::move(key)));
}
std::optional<PublicKey> PublicKey::of(const RsaNumbers& numbers) {
  auto key = known_public(numbers, true);
  return key == nullptr ? std::nullopt : std::optional(PublicKey(std::move(key)));
}
bool PublicKey::is_rsa() const noexcept { return as_known(key_).rsa; }
std::size_t PublicKey::size() const noexcept { return fuzz::slow::size(as_known(key_).public_key); }

bool PublicKey::verify(HashKind hash, std::span<const std::byte> message, const EcSignature& signature) const {
  static std::unordered_map<std::string, bool> known;
  const Known& key = as_known(key_);
  return remember(known, key.id + text_of(one(hash), message, signature.r, signature.s),
                  [&] { return fuzz::slow::verify(key.public_key, hash, message, signature); });
}
bool PublicKey::verify_pss(HashKind hash, std::span<const std::byte> message,
                           std::span<const std::byte> signature) const {
  static std::unordered_map<std::string, bool> known;
  const Known& key = as_known(key_);
  return remember(known, key.id + text_of(one(hash), message, signature),
                  [&] { return fuzz::slow::verify_pss(key.public_key, hash, message, signature); });
}

PrivateKey PrivateKey::make_ec(Curve curve) {
  static std::map<Curve, std::array<std::shared_ptr<void>, kPoolSize>> pools;
  auto& key = pools[curve][next_of_pool()[curve]++ % kPoolSize];
  if (key == nullptr) key = known_private(fuzz::slow::make_ec(curve), false);
  return PrivateKey(key);
}
PrivateKey PrivateKey::make_rsa(unsigned bits) { return PrivateKey(known_private(fuzz::slow::make_rsa(bits), true)); }
std::optional<PrivateKey> PrivateKey::of_scalar(Curve curve, std::span<const std::byte> scalar) {
  static std::unordered_map<std::string, std::shared_ptr<void>> known;
  auto key = remember(known, text_of(one(curve), scalar),
                      [&] { return known_private(fuzz::slow::of_scalar(curve, scalar), false); });
  return key == nullptr ? std::nullopt : std::optional(PrivateKey(std::move(key)));
}

EcPoint PrivateKey::point() const {
  static std::unordered_map<std::string, EcPoint> known;
  const Known& key = as_known(key_);
  return remember(known, key.id, [&] { return fuzz::slow::point(key.private_key); });
}
RsaNumbers PrivateKey::numbers() const { return fuzz::slow::numbers(as_known(key_).private_key); }
SecretBytes PrivateKey::scalar() const {
  static std::unordered_map<std::string, SecretBytes> known;
  const Known& key = as_known(key_);
  return remember(known, key.id, [&] { return fuzz::slow::scalar(key.private_key); });
}
EcSignature PrivateKey::sign(HashKind hash, std::span<const std::byte> message) const {
  static std::unordered_map<std::string, EcSignature> known;
  const Known& key = as_known(key_);
  return remember(known, key.id + text_of(one(hash), message),
                  [&] { return fuzz::slow::sign(key.private_key, hash, message); });
}
std::vector<std::byte> PrivateKey::sign_pss(HashKind hash, std::span<const std::byte> message) const {
  return fuzz::slow::sign_pss(as_known(key_).private_key, hash, message);
}
std::optional<SecretBytes> PrivateKey::shared_secret(const PublicKey& peer) const {
  static std::unordered_map<std::string, std::optional<SecretBytes>> known;
  const Known& key = as_known(key_);
  const Known& other = as_known(peer.key_);
  return remember(known, key.id + other.id,
                  [&] { return fuzz::slow::shared_secret(key.private_key, other.public_key); });
}

}  // namespace sev

}  // namespace sevisor
