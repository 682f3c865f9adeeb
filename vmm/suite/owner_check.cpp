#include "vmm/suite/owner_check.hpp"

#include <algorithm>
#include <fmt/format.h>
#include <fstream>
#include <nlohmann/json.hpp>

#include "base/error.hpp"
#include "sev/encoding.hpp"
#include "sev/verification.hpp"

namespace sevisor::suite {

namespace {

vmm::OwnerSession session_for(const sev::Certificate& pdh, std::uint32_t policy) {
  auto owner = vmm::make_owner_session(pdh, policy);
  if (!owner) {
    throw Error(ExitCode::kHostCannot, "make a session for the platform", "its PDH is not on the curve P-384",
                "Look at it with 'sevisor certs'.");
  }
  return *std::move(owner);
}

}  // namespace

OwnerCheck::OwnerCheck(const sev::Certificate& pdh, std::uint32_t policy, const std::string& folder)
    : owner_(session_for(pdh, policy)) {
  const auto write = [&](const char* option, const char* name, std::span<const std::byte> bytes) {
    const std::string path = folder + "/" + name;
    std::ofstream file(path, std::ios::binary);
    file << sev::to_base64(bytes);
    if (!file.flush())
      throw Error(ExitCode::kBadUsage, fmt::format("write '{}'", path), "it was not taken", "Make room.");
    arguments_.push_back(fmt::format("{}={}", option, path));
  };
  write("--dh-cert", "godh.b64", owner_.certificate.bytes());
  write("--session", "session.b64", owner_.session);
}

std::optional<std::string> OwnerCheck::why_not(const std::string& report, const sev::Digest& digest) const {
  const auto json = nlohmann::json::parse(report, nullptr, false);
  if (!json.is_object() || !json.contains("measurement")) return "the run reported no measurement";
  sev::LaunchClaim claim;
  claim.api.major = json.value<std::uint8_t>("api_major", 0);
  claim.api.minor = json.value<std::uint8_t>("api_minor", 0);
  claim.api.build = json.value<std::uint8_t>("build_id", 0);
  claim.policy = json.value<std::uint32_t>("policy", 0);
  const auto measurement = sev::from_base64(json.value("measurement", ""));
  if (!measurement || measurement->size() != claim.measurement.size()) return "the run reported no whole measurement";
  std::copy(measurement->begin(), measurement->end(), claim.measurement.begin());
  if (sev::matches(claim, *owner_.keys.tik, digest)) return std::nullopt;

  // Say which guest it was, if what sevisor computed is what was signed.
  const auto computed = sev::from_hex(json.value("launch_digest", ""));
  sev::Digest other{};
  if (computed && computed->size() == other.size()) {
    std::copy(computed->begin(), computed->end(), other.begin());
    if (sev::matches(claim, *owner_.keys.tik, other)) {
      return fmt::format("another guest was measured: launch digest {}, expected {}", sev::to_hex(other),
                         sev::to_hex(digest));
    }
  }
  return fmt::format("another guest was measured: the signature is not of launch digest {}", sev::to_hex(digest));
}

}  // namespace sevisor::suite
