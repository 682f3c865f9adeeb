#include "firmware/failure.hpp"

namespace sevisor::firmware {

const char* failure_text(Failure failure) noexcept {
  switch (failure) {
    case Failure::kNone:
      return "no failure";
    case Failure::kEarlyVc:
      return "#VC for something other than CPUID before the handler was ready";
    case Failure::kMsrReply:
      return "the hypervisor broke the GHCB MSR protocol";
    case Failure::kCBit:
      return "the C-bit is missing, out of range or not where CPUID says";
    case Failure::kSnp:
      return "SEV-SNP is active, this firmware knows SEV-ES only";
    case Failure::kRdrand:
      return "RDRAND gives no random numbers";
    case Failure::kApHold:
      return "the hypervisor broke the AP reset hold";
    case Failure::kGhcbReply:
      return "the hypervisor's reply in the GHCB is malformed";
    case Failure::kVcUnsupported:
      return "#VC for an event or instruction that the handler refuses";
    case Failure::kVcNested:
      return "#VC nested too deep";
    case Failure::kException:
      return "unexpected exception";
    case Failure::kNoFwCfg:
      return "no fw_cfg device";
    case Failure::kFwCfgTransfer:
      return "fw_cfg did not transfer what was asked for";
    case Failure::kMemoryMap:
      return "the memory map from fw_cfg is malformed";
    case Failure::kNoMemory:
      return "not enough memory below 3 GiB";
    case Failure::kAcpiTables:
      return "the ACPI table loader script from fw_cfg is malformed";
    case Failure::kNoKernel:
      return "no kernel was given";
    case Failure::kNotBzImage:
      return "the kernel is not a bzImage";
    case Failure::kKernelTooOld:
      return "the kernel's boot protocol is older than 2.12";
    case Failure::kKernelNot64Bit:
      return "the kernel has no 64-bit entry";
    case Failure::kKernelTruncated:
      return "the kernel is shorter than its header says";
    case Failure::kKernelHeader:
      return "the kernel's setup header is malformed";
    case Failure::kCommandLine:
      return "the command line is longer than the kernel takes";
    case Failure::kInitrd:
      return "the initrd finds no room where the kernel takes it";
    case Failure::kHashesTable:
      return "the table of kernel hashes is malformed";
    case Failure::kKernelHash:
      return "the kernel is not the one that was measured";
    case Failure::kInitrdHash:
      return "the initrd is not the one that was measured";
    case Failure::kCommandLineHash:
      return "the command line is not the one that was measured";
  }
  return "unknown failure";
}

}  // namespace sevisor::firmware
