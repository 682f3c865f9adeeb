#include "sev/session.hpp"

#include <algorithm>

#include "base/bytes.hpp"
#include "sev/sha256.hpp"

namespace sevisor::sev {

namespace {

constexpr std::size_t kNonceAt = 0;
constexpr std::size_t kWrappedAt = 16;
constexpr std::size_t kWrappedSize = 2 * kTransportKeySize;  // TEK, TIK
constexpr std::size_t kIvAt = 48;
constexpr std::size_t kWrapMacAt = 64;
constexpr std::size_t kPolicyMacAt = 96;
constexpr std::size_t kMacSize = sizeof(Digest);

using Wrapped = std::array<std::byte, kWrappedSize>;

Digest policy_mac(const TransportKey& tik, std::uint32_t policy) {
  std::array<std::byte, 4> bytes;
  store(bytes.data(), policy);
  return hmac_sha256(tik, bytes);
}

}  // namespace

TransportKeys make_transport_keys() {
  TransportKeys keys;
  fill_random(*keys.tek);
  fill_random(*keys.tik);
  return keys;
}

Wiped<Key128> session_master_secret(std::span<const std::byte> shared_secret, const Nonce& nonce) {
  return derive_key(shared_secret, "sev-master-secret", nonce);
}

Session make_session(const Key128& master, const Nonce& nonce, const Nonce& iv, const TransportKeys& keys,
                     std::uint32_t policy) {
  const Wiped<Key128> kek = derive_key(master, "sev-kek", {});
  const Wiped<Key128> kik = derive_key(master, "sev-kik", {});
  Wiped<Wrapped> wrapped;
  std::copy(keys.tik->begin(), keys.tik->end(), std::copy(keys.tek->begin(), keys.tek->end(), wrapped->begin()));
  aes128_ctr(*kek, iv, *wrapped, *wrapped);
  const Digest wrap_mac = hmac_sha256(*kik, *wrapped);
  const Digest mac = policy_mac(*keys.tik, policy);

  Session session{};
  const auto put = [&session](std::size_t at, std::span<const std::byte> bytes) {
    std::copy(bytes.begin(), bytes.end(), session.begin() + static_cast<std::ptrdiff_t>(at));
  };
  put(kNonceAt, nonce);
  put(kWrappedAt, *wrapped);
  put(kIvAt, iv);
  put(kWrapMacAt, wrap_mac);
  put(kPolicyMacAt, mac);
  return session;
}

std::optional<TransportKeys> open_session(std::span<const std::byte> shared_secret,
                                          std::span<const std::byte, kSessionSize> session, std::uint32_t policy) {
  const auto master = derive_key(shared_secret, "sev-master-secret", session.subspan<kNonceAt, kNonceSize>());
  const Wiped<Key128> kek = derive_key(*master, "sev-kek", {});
  const Wiped<Key128> kik = derive_key(*master, "sev-kik", {});
  const auto wrapped = session.subspan<kWrappedAt, kWrappedSize>();
  if (!same_bytes(hmac_sha256(*kik, wrapped), session.subspan<kWrapMacAt, kMacSize>())) return std::nullopt;
  Wiped<Wrapped> plain;
  aes128_ctr(*kek, session.subspan<kIvAt, kNonceSize>(), wrapped, *plain);
  TransportKeys keys;
  std::copy_n(plain->begin(), kTransportKeySize, keys.tek->begin());
  std::copy_n(plain->begin() + kTransportKeySize, kTransportKeySize, keys.tik->begin());
  if (!same_bytes(policy_mac(*keys.tik, policy), session.subspan<kPolicyMacAt, kMacSize>())) return std::nullopt;
  return keys;
}

}  // namespace sevisor::sev
