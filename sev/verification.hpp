// Checks a launch measurement against a description of the guest, and finds out in what the two may differ.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "sev/hashes_table.hpp"
#include "sev/initial_vmsa.hpp"
#include "sev/measurement.hpp"
#include "sev/session.hpp"

namespace sevisor::sev {

// The guest that its owner asked for.
struct ExpectedGuest {
  std::span<const std::byte> firmware;  // the whole image
  std::optional<KernelHashes> kernel;   // nothing: no hashes table is measured
  bool es = true;                       // SEV-ES: VMSAs are measured
  unsigned vcpus = 1;
  VmsaKind vmsa_kind;
  std::uint32_t ap_reset_address = 0;   // of the firmware; 0: it has none
  std::optional<VmsaPages> vmsa_pages;  // instead of those that kind and address give
};

// What the platform said of the guest that was launched.
struct LaunchClaim {
  ApiVersion api;
  std::uint32_t policy = 0;
  Measurement measurement{};
};

[[nodiscard]] Digest expected_digest(const ExpectedGuest& guest);

// Whether the claim is of a guest with this digest, made with this TIK. In constant time.
[[nodiscard]] bool matches(const LaunchClaim& claim, const TransportKey& tik, const Digest& digest);

// What is known besides, to try variants of.
struct MismatchClues {
  std::string cmdline;                     // of the expected kernel
  std::optional<Wiped<TransportKey>> tek;  // to see whether it was taken for the TIK
};

// For a claim that does not match: each sentence says how the launched guest would differ from the expected one to
// match, as "it was made by KVM_SEV_INIT2 (FPU state set)". Single differences first; pairs only if no single one does;
// empty if none of the known ones does. `tried` gets the number of variants.
[[nodiscard]] std::vector<std::string> explain_mismatch(const ExpectedGuest& guest, const LaunchClaim& claim,
                                                        const TransportKey& tik, const MismatchClues& clues,
                                                        unsigned& tried);

}  // namespace sevisor::sev
