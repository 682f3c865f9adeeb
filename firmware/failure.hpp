// Why the firmware gives up: the reason code of its SEV termination request (GHCB MSR protocol 0x100; GHCB
// specification, AMD 56421, section 2.3.1). The VMM uses the texts too.
#pragma once

#include <cstdint>

#include "firmware/layout.h"

namespace sevisor::firmware {

// The set that the specification leaves to guests; others than this firmware give codes of their own in it.
inline constexpr unsigned kFailureReasonSet = 1;

enum class Failure : std::uint8_t {
  kNone = 0,
  kEarlyVc = FW_FAILURE_EARLY_VC,
  kMsrReply = FW_FAILURE_MSR_REPLY,
  kCBit = FW_FAILURE_C_BIT,
  kSnp = FW_FAILURE_SNP,
  kRdrand = FW_FAILURE_RDRAND,
  kApHold = FW_FAILURE_AP_HOLD,
  kGhcbReply = 8,
  kVcUnsupported = 9,
  kVcNested = 10,
  kException = 11,
  kNoFwCfg = 12,
  kFwCfgTransfer = 13,
  kMemoryMap = 14,
  kNoMemory = 15,
  kAcpiTables = 16,
  kNoKernel = 17,
  kNotBzImage = 18,
  kKernelTooOld = 19,
  kKernelNot64Bit = 20,
  kKernelTruncated = 21,
  kKernelHeader = 22,
  kCommandLine = 23,
  kInitrd = 24,
  kHashesTable = 25,
  kKernelHash = 26,
  kInitrdHash = 27,
  kCommandLineHash = 28,
  kElf = 29,
  kElfMachine = 30,
  kElfEntry = 31,
};

// One sentence without a full stop.
[[nodiscard]] const char* failure_text(Failure failure) noexcept;
// Whether the value is one of those above but kNone.
[[nodiscard]] bool is_failure(Failure failure) noexcept;

}  // namespace sevisor::firmware
