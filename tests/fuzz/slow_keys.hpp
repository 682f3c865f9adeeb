// sev/public_key.hpp's functions as they are, by other names: what remembered_keys.cpp asks when it does not know. A
// key is opaque; null stands for none.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "sev/public_key.hpp"

namespace sevisor::fuzz::slow {

using Key = std::shared_ptr<const void>;

[[nodiscard]] Key public_key(const sev::EcPoint& point);
[[nodiscard]] Key public_key(const sev::RsaNumbers& numbers);
[[nodiscard]] Key public_part(const Key& private_key);
[[nodiscard]] std::size_t size(const Key& public_key);
[[nodiscard]] bool verify(const Key& public_key, sev::HashKind hash, std::span<const std::byte> message,
                          const sev::EcSignature& signature);
[[nodiscard]] bool verify_pss(const Key& public_key, sev::HashKind hash, std::span<const std::byte> message,
                              std::span<const std::byte> signature);

[[nodiscard]] Key make_ec(sev::Curve curve);
[[nodiscard]] Key make_rsa(unsigned bits);
[[nodiscard]] Key of_scalar(sev::Curve curve, std::span<const std::byte> scalar);
[[nodiscard]] sev::EcPoint point(const Key& private_key);
[[nodiscard]] sev::RsaNumbers numbers(const Key& private_key);
[[nodiscard]] sev::SecretBytes scalar(const Key& private_key);
[[nodiscard]] sev::EcSignature sign(const Key& private_key, sev::HashKind hash, std::span<const std::byte> message);
[[nodiscard]] std::vector<std::byte> sign_pss(const Key& private_key, sev::HashKind hash,
                                              std::span<const std::byte> message);
[[nodiscard]] std::optional<sev::SecretBytes> shared_secret(const Key& private_key, const Key& peer);

}  // namespace sevisor::fuzz::slow
