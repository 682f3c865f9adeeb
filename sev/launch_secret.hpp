// Secrets for a measured guest: the table that the guest reads, and the packet in which it travels.
// AMD SEV API (55766) section 6.6 LAUNCH_SECRET; the table is OVMF's (OvmfPkg/AmdSev/SecretDxe) and Linux' efi_secret.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "sev/guid.hpp"
#include "sev/measurement.hpp"
#include "sev/secret_memory.hpp"
#include "sev/session.hpp"

namespace sevisor::sev {

inline constexpr Guid kSecretTableGuid = Guid::parse("1e74f542-71dd-4d66-963e-ef4287ff173b");
inline constexpr Guid kLuksKeyGuid = Guid::parse("736869e5-84f0-4973-92ec-06879ce3da0b");

inline constexpr std::size_t kSecretHeaderSize = 52;
inline constexpr std::size_t kMaxSecretSize = 16 << 10;  // bytes of a packet: what KVM copies for one command

using SecretHeader = std::array<std::byte, kSecretHeaderSize>;

struct SecretEntry {
  Guid guid;
  SecretBytes data;
};

// A GUID in text, or the alias "luks-key". nullopt if it is neither.
[[nodiscard]] std::optional<Guid> parse_secret_name(std::string_view text);

// With zeros at its end to a multiple of 16. Throws Error (kBadUsage) when there is no entry, a GUID stands twice, or
// the table would be larger than kMaxSecretSize.
[[nodiscard]] SecretBytes build_secret_table(std::span<const SecretEntry> entries);

// The table is untrusted input. Throws Error (kBadUsage) when it is none.
[[nodiscard]] std::vector<SecretEntry> parse_secret_table(std::span<const std::byte> table);

// As LAUNCH_SECRET takes it.
struct SecretPacket {
  SecretHeader header{};
  std::vector<std::byte> payload;  // encrypted, as long as what it holds
};

// `plain`: a multiple of 16 bytes, not empty. `measurement`: of the launch that is to receive it, and of no other; API
// versions before 0.17 do not bind the packet to it. `iv`: random, never used twice with this TEK.
[[nodiscard]] SecretPacket seal_secret(const TransportKeys& keys, const ApiVersion& api, const Measurement& measurement,
                                       const Nonce& iv, std::span<const std::byte> plain);

// What the platform does with it. nullopt when the MAC is wrong.
[[nodiscard]] std::optional<SecretBytes> open_secret(const TransportKeys& keys, const ApiVersion& api,
                                                     const Measurement& measurement, const SecretPacket& packet);

}  // namespace sevisor::sev
