// The guest's programs by number, and what it tells the test.
#pragma once

#include <cstdint>

namespace sevisor::nae {

enum class Program : std::uint64_t {
  // An instruction, its #VC and the handler's request.
  kCpuid,
  kCpuidXsave,
  kDr7,
  kTimeStamp,
  kRdpmc,
  kInvd,
  kWbinvd,
  kPorts,
  kPortStrings,
  kMsr,
  kMsrUnknown,
  kVmmcall,
  kVmmcallUser,
  kMonitor,
  kAlignmentCheck,
  kSingleStep,
  kNmi,
  kMmio,
  kMmioApic,
  kApHoldPage,
  kApHoldMsr,
  kJumpTable,
  kFeatures,
  // Automatic exits.
  kHlt,
  kPause,
  kWriteTraps,
  kShutdown,
  kReadOnlyPage,
  // Ends.
  kTerminateMsr,
  kTerminatePage,
  kUnsupported,
  kRdtscRequest,
  kRdtscpRequest,
  // Rules broken.
  kUsage,
  kMissingAlways,
  kMissingFields,
  kUnknownEvents,
  kScratchRules,
  kScratchOutside,
  kScratchOutsideVersion2,
  kScratchNoMemory,
  kStringTooLong,
  kMmioLength,
  kMmioLengthVersion2,
  kJumpTableOperation,
  kPrivateGhcb,
  kGhcbNowhere,
  kGhcbUnaligned,
  kMsrUnknownRequest,
  kMsrSnpRequest,
  kNegotiation,
  kAnswerBitmap,
  kUserVmgexit,
  kPrivateMmio,
  kUnclean,
  kBench,
  kPages,  // does what the test orders with private pages, until it is to end
};

// In the shared page at NAE_ORDER. The guest reads it each time that it has written to NAE_ORDER_PORT.
struct Order {
  enum class Kind : std::uint64_t {
    kEnd,
    kWrite,  // the page at NAE_ORDER_DATA to the private page
    kRead,   // the opposite
    kFlush,  // CLFLUSH of the private page
  };
  Kind kind = Kind::kEnd;
  std::uint64_t page = 0;  // linear address
};

// In the shared page at NAE_RESULT.
struct Result {
  std::uint64_t line = 0;  // of the check that failed; 0: none
  std::uint64_t actual = 0;
  std::uint64_t expected = 0;
  std::uint64_t stage = 0;  // how far a program came that does not end by itself
  std::uint64_t values[16] = {};
};

}  // namespace sevisor::nae
