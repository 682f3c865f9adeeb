// Exit codes: EXITCODE of an automatic exit, error code of #VC, SW_EXITCODE in the GHCB. Freestanding.
// APM vol. 2 appendix C and 15.35.4; GHCB specification (AMD 56421) section 4.1; Linux arch/x86/include/uapi/asm/svm.h.
#pragma once

#include <cstdint>

namespace sevisor::ghcb {

using ExitCode = std::uint64_t;

inline constexpr ExitCode kExitReadDr7 = 0x27;
inline constexpr ExitCode kExitWriteDr7 = 0x37;
inline constexpr ExitCode kExitException = 0x40;  // + vector
inline constexpr ExitCode kExitExceptionDb = 0x41;
inline constexpr ExitCode kExitExceptionAc = 0x51;
inline constexpr ExitCode kExitExceptionMc = 0x52;
inline constexpr ExitCode kExitIntr = 0x60;
inline constexpr ExitCode kExitNmi = 0x61;
inline constexpr ExitCode kExitSmi = 0x62;
inline constexpr ExitCode kExitInit = 0x63;
inline constexpr ExitCode kExitVintr = 0x64;
inline constexpr ExitCode kExitRdtsc = 0x6e;
inline constexpr ExitCode kExitRdpmc = 0x6f;
inline constexpr ExitCode kExitCpuid = 0x72;
inline constexpr ExitCode kExitRsm = 0x73;
inline constexpr ExitCode kExitIret = 0x74;
inline constexpr ExitCode kExitInvd = 0x76;
inline constexpr ExitCode kExitPause = 0x77;
inline constexpr ExitCode kExitHlt = 0x78;
inline constexpr ExitCode kExitInvlpga = 0x7a;
inline constexpr ExitCode kExitIoio = 0x7b;
inline constexpr ExitCode kExitMsr = 0x7c;
inline constexpr ExitCode kExitTaskSwitch = 0x7d;
inline constexpr ExitCode kExitShutdown = 0x7f;
inline constexpr ExitCode kExitVmrun = 0x80;
inline constexpr ExitCode kExitVmmcall = 0x81;
inline constexpr ExitCode kExitVmload = 0x82;
inline constexpr ExitCode kExitVmsave = 0x83;
inline constexpr ExitCode kExitStgi = 0x84;
inline constexpr ExitCode kExitClgi = 0x85;
inline constexpr ExitCode kExitSkinit = 0x86;
inline constexpr ExitCode kExitRdtscp = 0x87;
inline constexpr ExitCode kExitWbinvd = 0x89;
inline constexpr ExitCode kExitMonitor = 0x8a;
inline constexpr ExitCode kExitMwait = 0x8b;
inline constexpr ExitCode kExitRdpru = 0x8e;
inline constexpr ExitCode kExitEferWriteTrap = 0x8f;
inline constexpr ExitCode kExitCr0WriteTrap = 0x90;  // + CR number
inline constexpr ExitCode kExitNpf = 0x400;
inline constexpr ExitCode kExitVmgexit = 0x403;
inline constexpr ExitCode kExitInvalid = ~ExitCode{0};  // VMRUN refused the state

// Software-defined, in the GHCB only (GHCB specification table 7).
inline constexpr ExitCode kExitMmioRead = 0x80000001;
inline constexpr ExitCode kExitMmioWrite = 0x80000002;
inline constexpr ExitCode kExitNmiComplete = 0x80000003;
inline constexpr ExitCode kExitApResetHold = 0x80000004;
inline constexpr ExitCode kExitApJumpTable = 0x80000005;
inline constexpr ExitCode kExitHypervisorFeatures = 0x8000fffd;
inline constexpr ExitCode kExitTerminate = 0x8000fffe;
inline constexpr ExitCode kExitUnsupportedEvent = 0x8000ffff;

}  // namespace sevisor::ghcb
