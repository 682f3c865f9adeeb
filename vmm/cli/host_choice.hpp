// Which host runs a guest.
#pragma once

#include <memory>
#include <string>

#include "kvm/host.hpp"
#include "kvm/observer.hpp"

namespace sevisor::cli {

// Throws Error (kBadUsage) unless it is auto, kernel or emulated.
void check_host_name(const std::string& host);

// The host that `choice` asks for; says so when `auto` falls back. `known`: sessions are made for a platform with
// certificates, so it must be this machine's own. `check`: the guest is watched, which only the emulated host can.
// Throws Error (kHostCannot; kBadUsage if it cannot be watched).
[[nodiscard]] std::unique_ptr<kvm::Host> choose_host(const std::string& choice, bool known, kvm::Observer& observer,
                                                     bool check);

// The host of a plain guest: the kernel's, whatever its processor, or the emulated one, which is said when `auto` falls
// back. Throws Error (kHostCannot).
[[nodiscard]] std::unique_ptr<kvm::Host> plain_host(const std::string& choice, kvm::Observer& observer);

}  // namespace sevisor::cli
