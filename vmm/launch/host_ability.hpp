// Whether a host can run guests at all.
#pragma once

#include <optional>
#include <string>

#include "kvm/host.hpp"

namespace sevisor::vmm {

// nullopt if the host can run SEV-ES guests, else why not.
[[nodiscard]] std::optional<std::string> why_no_sev_es(kvm::Host& host);

// The same for plain guests.
[[nodiscard]] std::optional<std::string> why_no_kvm(kvm::Host& host);

}  // namespace sevisor::vmm
