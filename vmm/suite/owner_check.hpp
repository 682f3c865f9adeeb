// Has the Secure Processor itself attest what was launched: each run gets a session, whose key signs its measurement.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "sev/certificate.hpp"
#include "sev/sha256.hpp"
#include "vmm/launch/owner_session.hpp"

namespace sevisor::suite {

class OwnerCheck {
 public:
  // Writes the session's files into `folder`. `pdh`: of the platform that will launch the guest; its chain is not
  // verified here, as a test keeps no secrets. Throws Error.
  OwnerCheck(const sev::Certificate& pdh, std::uint32_t policy, const std::string& folder);

  // Options of `sevisor run`.
  [[nodiscard]] const std::vector<std::string>& arguments() const noexcept { return arguments_; }

  // `report`: what `sevisor run --json` wrote. nullopt if the measurement in it is of a guest with this digest, else
  // why not.
  [[nodiscard]] std::optional<std::string> why_not(const std::string& report, const sev::Digest& digest) const;

 private:
  vmm::OwnerSession owner_;
  std::vector<std::string> arguments_;
};

}  // namespace sevisor::suite
