// What the firmware knows of the guest it runs in (SEV_STATUS: APM vol. 2 section 15.34.10), and how it ends it (GHCB
// specification, AMD 56421, section 2.3.1).
#pragma once

#include <cstddef>
#include <cstdint>

#include "firmware/failure.hpp"
#include "firmware/layout.h"

namespace sevisor::firmware {

// Left by the 32-bit stage at FW_EARLY_STATE.
struct EarlyState {
  std::uint64_t sev_status;  // SEV_STATUS MSR
  std::uint64_t c_bit_mask;  // of a page-table entry; 0 without SEV
  std::uint64_t check;       // the C-bit check's random bytes
  std::uint32_t vc_seen;     // a #VC came: SEV-ES is active
  std::uint32_t reserved;
};
static_assert(offsetof(EarlyState, sev_status) == FW_STATE_SEV_STATUS);
static_assert(offsetof(EarlyState, c_bit_mask) == FW_STATE_C_BIT_MASK);
static_assert(offsetof(EarlyState, check) == FW_STATE_CHECK);
static_assert(offsetof(EarlyState, vc_seen) == FW_STATE_VC_SEEN);
static_assert(sizeof(EarlyState) == 32);

[[nodiscard]] const EarlyState& early_state() noexcept;
[[nodiscard]] bool sev_active() noexcept;
[[nodiscard]] bool sev_es_active() noexcept;

// Ends the guest: under SEV-ES a termination request with the reason (GHCB MSR protocol 0x100, set 1), elsewhere the
// processor just stops. Silent.
[[noreturn]] void terminate(Failure failure) noexcept;
[[noreturn]] void terminate(std::uint8_t reason_set, std::uint8_t reason) noexcept;
// Says why on the console, then terminates.
[[noreturn]] void give_up(Failure failure) noexcept;

}  // namespace sevisor::firmware
