// Exceptions of the 64-bit stage: the IDT, #VC through ghcb/guest, MSR accesses that may fault, and the end for all
// others. APM vol. 2 sections 8.9 (long mode) and 15.35 (SEV-ES), GHCB specification (AMD 56421) section 4.
#pragma once

#include <cstdint>

#include "ghcb/guest/exchange.hpp"

namespace sevisor::firmware {

// Loads the IDT. Under SEV-ES also negotiates the protocol version, shares the GHCB page and readies the #VC handler;
// ends the guest when the hypervisor does not play along. No event that raises #VC may come before this returns.
void exceptions_open() noexcept;

// The negotiated GHCB protocol version; 0 without SEV-ES.
[[nodiscard]] unsigned protocol_version() noexcept;

// An NAE event that no instruction stands for. SEV-ES only.
[[nodiscard]] ghcb::guest::Reply request(ghcb::ExitCode code, std::uint64_t info_1, std::uint64_t info_2) noexcept;

}  // namespace sevisor::firmware
