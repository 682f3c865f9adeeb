#include "sev/policy.hpp"

#include <charconv>
#include <fmt/format.h>

#include "base/error.hpp"

namespace sevisor::sev {

namespace {

struct PolicyBit {
  std::uint32_t bit;
  const char* name;
};
constexpr PolicyBit kPolicyBits[] = {
    {kPolicyNoDebug, "NODBG"}, {kPolicyNoKeyShare, "NOKS"}, {kPolicyEs, "ES"},
    {kPolicyNoSend, "NOSEND"}, {kPolicyDomain, "DOMAIN"},   {kPolicySev, "SEV"},
};

}  // namespace

std::string policy_text(std::uint32_t policy) {
  std::string text;
  const auto add = [&text](std::string_view part) {
    if (!text.empty()) text += '|';
    text += part;
  };
  for (const PolicyBit& entry : kPolicyBits) {
    if (policy & entry.bit) add(entry.name);
  }
  if (const std::uint32_t reserved = policy & kPolicyReserved; reserved != 0) add(fmt::format("{:#x}", reserved));
  if (policy >> kPolicyApiMajorShift != 0) {
    add(fmt::format("API>={}.{}", policy >> kPolicyApiMajorShift & 0xff, policy >> kPolicyApiMinorShift));
  }
  return text.empty() ? "none" : text;
}

std::uint32_t parse_policy(std::string_view text) {
  const bool hex = text.starts_with("0x") || text.starts_with("0X");
  const std::string_view digits = hex ? text.substr(2) : text;
  std::uint32_t policy = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), policy, hex ? 16 : 10);
  if (error != std::errc{} || end != digits.data() + digits.size()) {
    throw Error(ExitCode::kBadUsage, fmt::format("read the policy '{}'", text), "not a 32-bit number",
                "Give a number such as 0x5 (SEV-ES, no debugging).");
  }
  return policy;
}

std::string reserved_policy_text(std::uint32_t policy) {
  if ((policy & kPolicyReserved) == 0) return {};
  return fmt::format("bits {:#x} of it are reserved and should be 0", policy & kPolicyReserved);
}

void require_sev_es_policy(std::uint32_t policy) {
  if (policy & kPolicyReserved) {
    throw Error(ExitCode::kBadUsage, fmt::format("use the policy {:#x} ({})", policy, policy_text(policy)),
                reserved_policy_text(policy), "Clear them; 0x5 (ES|NODBG) is the default.");
  }
  if (!(policy & kPolicyEs)) {
    throw Error(ExitCode::kBadUsage, fmt::format("use the policy {:#x} ({})", policy, policy_text(policy)),
                "it does not ask for SEV-ES, and only SEV-ES guests are run here",
                fmt::format("Set bit 2, as in --policy {:#x}.", policy | kPolicyEs));
  }
}

}  // namespace sevisor::sev
