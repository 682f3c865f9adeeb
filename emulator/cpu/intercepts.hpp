// Which instructions and events a hypervisor intercepts from an SEV-ES guest, and how each is reported: the set of
// Linux/KVM (arch/x86/kvm/svm/svm.c init_vmcb(), sev.c sev_es_init_vmcb()) and APM vol. 2 table 15-33.
#pragma once

#include <array>
#include <cstdint>

#include "emulator/cpu/core.hpp"
#include "ghcb/exit_code.hpp"

namespace sevisor::emulator {

enum class ExitKind : std::uint8_t {
  kNone,          // not intercepted: the instruction runs
  kAutomatic,     // AE: world switch
  kNonAutomatic,  // NAE: #VC in the guest, with the exit code as error code
};

// PAUSE exits when it is the last of this many within a VMRUN, each at most so many ticks after the one before (APM
// vol. 2, 15.14.4). KVM's parameters are 3000 and 128; but here vCPUs take turns, and what one of them spins for
// happens in another's turn only. With 3000, stop_machine() on 64 vCPUs took so long that Linux lost timer ticks and
// its trust in the TSC, and a boot 21 s instead of 8.
inline constexpr std::uint32_t kPauseFilterCount = 32;
inline constexpr std::uint64_t kPauseFilterThreshold = 128;

struct Intercept {
  ghcb::ExitCode code;
  ExitKind kind;
};

inline constexpr ghcb::ExitCode kExitCr4WriteTrap = ghcb::kExitCr0WriteTrap + 4;
inline constexpr ghcb::ExitCode kExitCr8WriteTrap = ghcb::kExitCr0WriteTrap + 8;

// Intercepts that need no entry: #MC never happens here; INTR, NMI, SMI, INIT and VINTR are the run loop's.
inline constexpr std::array kIntercepts = {
    Intercept{ghcb::kExitReadDr7, ExitKind::kNonAutomatic},
    Intercept{ghcb::kExitWriteDr7, ExitKind::kNonAutomatic},
    Intercept{ghcb::kExitExceptionDb, ExitKind::kNonAutomatic},
    Intercept{ghcb::kExitExceptionAc, ExitKind::kNonAutomatic},
    Intercept{ghcb::kExitRdpmc, ExitKind::kNonAutomatic},
    Intercept{ghcb::kExitCpuid, ExitKind::kNonAutomatic},
    Intercept{ghcb::kExitInvd, ExitKind::kNonAutomatic},
    Intercept{ghcb::kExitPause, ExitKind::kAutomatic},
    Intercept{ghcb::kExitHlt, ExitKind::kAutomatic},
    Intercept{ghcb::kExitInvlpga, ExitKind::kNonAutomatic},
    Intercept{ghcb::kExitIoio, ExitKind::kNonAutomatic},
    Intercept{ghcb::kExitMsr, ExitKind::kNonAutomatic},
    Intercept{ghcb::kExitTaskSwitch, ExitKind::kNonAutomatic},
    Intercept{ghcb::kExitShutdown, ExitKind::kAutomatic},
    Intercept{ghcb::kExitVmrun, ExitKind::kNonAutomatic},
    Intercept{ghcb::kExitVmmcall, ExitKind::kNonAutomatic},
    Intercept{ghcb::kExitVmload, ExitKind::kNonAutomatic},
    Intercept{ghcb::kExitVmsave, ExitKind::kNonAutomatic},
    Intercept{ghcb::kExitStgi, ExitKind::kNonAutomatic},
    Intercept{ghcb::kExitClgi, ExitKind::kNonAutomatic},
    Intercept{ghcb::kExitSkinit, ExitKind::kNonAutomatic},
    Intercept{ghcb::kExitWbinvd, ExitKind::kNonAutomatic},
    Intercept{ghcb::kExitMonitor, ExitKind::kNonAutomatic},
    Intercept{ghcb::kExitMwait, ExitKind::kNonAutomatic},
    Intercept{ghcb::kExitRdpru, ExitKind::kNonAutomatic},
    Intercept{ghcb::kExitEferWriteTrap, ExitKind::kAutomatic},
    Intercept{ghcb::kExitCr0WriteTrap, ExitKind::kAutomatic},
    Intercept{kExitCr4WriteTrap, ExitKind::kAutomatic},
    Intercept{kExitCr8WriteTrap, ExitKind::kAutomatic},
    Intercept{ghcb::kExitNpf, ExitKind::kNonAutomatic},  // of a page without a slot: KVM sets a reserved bit there
    Intercept{ghcb::kExitVmgexit, ExitKind::kAutomatic},
};

[[nodiscard]] constexpr ExitKind exit_kind(ghcb::ExitCode code) noexcept {
  for (const Intercept& i : kIntercepts) {
    if (i.code == code) return i.kind;
  }
  return ExitKind::kNone;
}

// What a handler returns whose instruction is intercepted, after the instruction's own checks (APM vol. 2, 15.9).
// `info1`: EXITINFO1, which nobody sees of an exit that is #VC.
template <ghcb::ExitCode kCode>
const Op* intercept(Core& core, const Op* op, std::uint64_t info1 = 0) noexcept {
  static_assert(exit_kind(kCode) != ExitKind::kNone);
  if constexpr (exit_kind(kCode) == ExitKind::kAutomatic) {
    return core.exit_after(op, kCode, info1);
  } else {
    if (core.config.protection != Protection::kSevEs) core.exit.info1 = info1;
    return core.vc(kCode);
  }
}

}  // namespace sevisor::emulator
