#include "firmware/guest_state.hpp"

#include "firmware/console.hpp"
#include "firmware/cpu.hpp"
#include "ghcb/msr_protocol.hpp"

namespace sevisor::firmware {

const EarlyState& early_state() noexcept { return *reinterpret_cast<const EarlyState*>(FW_EARLY_STATE); }
bool sev_active() noexcept { return (early_state().sev_status & ghcb::msr::kSevStatusSev) != 0; }
bool sev_es_active() noexcept { return (early_state().sev_status & ghcb::msr::kSevStatusSevEs) != 0; }

void terminate(std::uint8_t reason_set, std::uint8_t reason) noexcept {
  while (sev_es_active()) {
    write_msr(ghcb::msr::kGhcbMsr, encode(ghcb::msr::Termination{.reason_set = reason_set, .reason = reason}));
    vmgexit();
  }
  halt_forever();
}

void terminate(Failure failure) noexcept { terminate(ghcb::msr::kReasonSetGuest, static_cast<std::uint8_t>(failure)); }

void give_up(Failure failure) noexcept {
  print_line(failure_text(failure), " (reason ", std::uint64_t{static_cast<std::uint8_t>(failure)}, ")");
  terminate(failure);
}

}  // namespace sevisor::firmware
