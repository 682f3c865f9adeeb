// Names of exit codes, for people: those of Linux arch/x86/include/uapi/asm/svm.h without SVM_EXIT_ and SVM_VMGEXIT_.
#pragma once

#include <array>
#include <string_view>

#include "ghcb/exit_code.hpp"

namespace sevisor::ghcb {

struct ExitName {
  ExitCode code;
  std::string_view name;
};

// By code.
inline constexpr std::array kExitNames = {
    ExitName{kExitReadDr7, "READ_DR7"},
    ExitName{kExitWriteDr7, "WRITE_DR7"},
    ExitName{kExitExceptionDb, "EXCP_DB"},
    ExitName{kExitExceptionAc, "EXCP_AC"},
    ExitName{kExitExceptionMc, "EXCP_MC"},
    ExitName{kExitIntr, "INTR"},
    ExitName{kExitNmi, "NMI"},
    ExitName{kExitSmi, "SMI"},
    ExitName{kExitInit, "INIT"},
    ExitName{kExitVintr, "VINTR"},
    ExitName{kExitRdtsc, "RDTSC"},
    ExitName{kExitRdpmc, "RDPMC"},
    ExitName{kExitCpuid, "CPUID"},
    ExitName{kExitRsm, "RSM"},
    ExitName{kExitInvd, "INVD"},
    ExitName{kExitPause, "PAUSE"},
    ExitName{kExitHlt, "HLT"},
    ExitName{kExitInvlpga, "INVLPGA"},
    ExitName{kExitIoio, "IOIO"},
    ExitName{kExitMsr, "MSR"},
    ExitName{kExitTaskSwitch, "TASK_SWITCH"},
    ExitName{kExitShutdown, "SHUTDOWN"},
    ExitName{kExitVmrun, "VMRUN"},
    ExitName{kExitVmmcall, "VMMCALL"},
    ExitName{kExitVmload, "VMLOAD"},
    ExitName{kExitVmsave, "VMSAVE"},
    ExitName{kExitStgi, "STGI"},
    ExitName{kExitClgi, "CLGI"},
    ExitName{kExitSkinit, "SKINIT"},
    ExitName{kExitRdtscp, "RDTSCP"},
    ExitName{kExitWbinvd, "WBINVD"},
    ExitName{kExitMonitor, "MONITOR"},
    ExitName{kExitMwait, "MWAIT"},
    ExitName{kExitRdpru, "RDPRU"},
    ExitName{kExitEferWriteTrap, "EFER_WRITE_TRAP"},
    ExitName{kExitCr0WriteTrap, "CR0_WRITE_TRAP"},
    ExitName{kExitCr0WriteTrap + 4, "CR4_WRITE_TRAP"},
    ExitName{kExitCr0WriteTrap + 8, "CR8_WRITE_TRAP"},
    ExitName{kExitNpf, "NPF"},
    ExitName{kExitVmgexit, "VMGEXIT"},
    ExitName{kExitMmioRead, "MMIO_READ"},
    ExitName{kExitMmioWrite, "MMIO_WRITE"},
    ExitName{kExitNmiComplete, "NMI_COMPLETE"},
    ExitName{kExitApResetHold, "AP_HLT_LOOP"},
    ExitName{kExitApJumpTable, "AP_JUMP_TABLE"},
    ExitName{kExitHypervisorFeatures, "HV_FEATURES"},
    ExitName{kExitTerminate, "TERM_REQUEST"},
    ExitName{kExitUnsupportedEvent, "UNSUPPORTED_EVENT"},
    ExitName{kExitInvalid, "INVALID"},
};

// "unknown" for a code that the table does not have.
[[nodiscard]] constexpr std::string_view exit_name(ExitCode code) noexcept {
  for (const ExitName& entry : kExitNames) {
    if (entry.code == code) return entry.name;
  }
  return "unknown";
}

}  // namespace sevisor::ghcb
