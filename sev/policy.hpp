// The guest policy that LAUNCH_START takes. AMD SEV API (55766) chapter 3.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace sevisor::sev {

inline constexpr std::uint32_t kPolicyNoDebug = 1U << 0;      // NODBG: no debugging
inline constexpr std::uint32_t kPolicyNoKeyShare = 1U << 1;   // NOKS: no key shared with another guest
inline constexpr std::uint32_t kPolicyEs = 1U << 2;           // ES: SEV-ES required
inline constexpr std::uint32_t kPolicyNoSend = 1U << 3;       // NOSEND: not to be sent to another platform
inline constexpr std::uint32_t kPolicyDomain = 1U << 4;       // DOMAIN: not to be sent outside its domain
inline constexpr std::uint32_t kPolicySev = 1U << 5;          // SEV: not to be sent to a platform without SEV
inline constexpr std::uint32_t kPolicyReserved = 0x0000ffc0;  // bits 15:6, must be 0
inline constexpr unsigned kPolicyApiMajorShift = 16;          // least firmware version of a migration target
inline constexpr unsigned kPolicyApiMinorShift = 24;

// SEV-ES, and no debugging: a guest that its host could read through DBG_DECRYPT would be protected from nobody.
inline constexpr std::uint32_t kDefaultPolicy = kPolicyNoDebug | kPolicyEs;

// "NODBG|ES", with "|API>=1.55" if a version is asked, unknown bits in hex; "none" for 0.
[[nodiscard]] std::string policy_text(std::uint32_t policy);

// Decimal or 0x hexadecimal. Throws Error (kBadUsage) when it is no 32-bit number.
[[nodiscard]] std::uint32_t parse_policy(std::string_view text);

// "bits 0x40 of it are reserved and should be 0" for a policy that has some; empty for others. Platforms that take such
// a policy have been seen, so a guest that has one can be measured and verified.
[[nodiscard]] std::string reserved_policy_text(std::uint32_t policy);

// Throws Error (kBadUsage) when reserved bits are set or the policy does not ask for SEV-ES.
void require_sev_es_policy(std::uint32_t policy);

}  // namespace sevisor::sev
