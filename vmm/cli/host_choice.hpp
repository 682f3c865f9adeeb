// Which host runs a guest.
#pragma once

#include <memory>
#include <string>

#include "emulator/kvm/personality.hpp"
#include "kvm/host.hpp"
#include "kvm/observer.hpp"

namespace sevisor::cli {

// Throws Error (kBadUsage) unless it is auto, kernel or emulated.
void check_host_name(const std::string& host);

// The option --kvm: whose KVM the emulated host is. Throws Error (kBadUsage) for a kernel that it cannot be; null if
// `kernel` is empty.
[[nodiscard]] const emulator::Personality* parse_personality(const std::string& kernel);

// What is asked of the host but its name.
struct HostWishes {
  bool known = false;  // sessions are made for a platform with certificates, so it must be this machine's own
  bool check = false;  // the guest is watched, which only the emulated host can
  const emulator::Personality* personality = nullptr;  // only the emulated host has one to choose; null: the newest
};

// The host that `choice` asks for; says so when `auto` falls back. Throws Error (kHostCannot; kBadUsage if the kernel's
// cannot do what is wished).
[[nodiscard]] std::unique_ptr<kvm::Host> choose_host(const std::string& choice, const HostWishes& wishes,
                                                     kvm::Observer& observer);

// The host of a plain guest: the kernel's, whatever its processor, or the emulated one, which is said when `auto` falls
// back. Throws Error (kHostCannot).
[[nodiscard]] std::unique_ptr<kvm::Host> plain_host(const std::string& choice, const HostWishes& wishes,
                                                    kvm::Observer& observer);

}  // namespace sevisor::cli
