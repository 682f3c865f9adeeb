// The symmetric cryptography of the SEV API, by OpenSSL. AMD SEV API (55766) section 2.2.
#pragma once

#include <array>
#include <cstddef>
#include <span>
#include <string_view>

#include "sev/secret_memory.hpp"

namespace sevisor::sev {

using Key128 = std::array<std::byte, 16>;

// NIST SP 800-108 in counter mode with HMAC-SHA256, one block: 16 bytes of key. Counter and length are 32 bits,
// little-endian, the length counting bits; a zero byte stands between label and context.
[[nodiscard]] Wiped<Key128> derive_key(std::span<const std::byte> key, std::string_view label,
                                       std::span<const std::byte> context);

// `iv`: the initial counter block; big-endian increment. `in` and `out` have one size and may be the same.
void aes128_ctr(const Key128& key, std::span<const std::byte, 16> iv, std::span<const std::byte> in,
                std::span<std::byte> out);

// Compares in constant time.
[[nodiscard]] bool same_bytes(std::span<const std::byte> a, std::span<const std::byte> b);

// From the generator of the operating system, through OpenSSL's.
void fill_random(std::span<std::byte> out);

}  // namespace sevisor::sev
