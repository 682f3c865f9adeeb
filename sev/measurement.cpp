#include "sev/measurement.hpp"

#include <algorithm>
#include <initializer_list>
#include <vector>

#include "base/bytes.hpp"

namespace sevisor::sev {

namespace {

constexpr std::uint8_t kMeasureContext = 0x04;  // first byte of what LAUNCH_MEASURE signs

bool signs_version(const ApiVersion& api) { return api.major > 0 || api.minor >= 17; }

}  // namespace

Digest measurement_hmac(const TransportKey& tik, const ApiVersion& api, std::uint32_t policy,
                        const Digest& launch_digest, const Nonce& nonce) {
  std::vector<std::byte> text;
  if (signs_version(api)) {
    for (const std::uint8_t value : {kMeasureContext, api.major, api.minor, api.build})
      text.push_back(std::byte{value});
  }
  std::array<std::byte, 4> policy_bytes{};
  store(policy_bytes.data(), policy);
  text.insert(text.end(), policy_bytes.begin(), policy_bytes.end());
  text.insert(text.end(), launch_digest.begin(), launch_digest.end());
  text.insert(text.end(), nonce.begin(), nonce.end());
  return hmac_sha256(tik, text);
}

Measurement make_measurement(const TransportKey& tik, const ApiVersion& api, std::uint32_t policy,
                             const Digest& launch_digest, const Nonce& nonce) {
  Measurement measurement{};
  const Digest hmac = measurement_hmac(tik, api, policy, launch_digest, nonce);
  std::copy(nonce.begin(), nonce.end(), std::copy(hmac.begin(), hmac.end(), measurement.begin()));
  return measurement;
}

}  // namespace sevisor::sev
