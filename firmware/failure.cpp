#include "firmware/failure.hpp"

namespace sevisor::firmware {

namespace {
struct FailureText {
  Failure failure;
  const char* text;
};

constexpr FailureText kTexts[] = {
    {Failure::kEarlyVc, "#VC for something other than CPUID before the handler was ready"},
    {Failure::kMsrReply, "the hypervisor broke the GHCB MSR protocol"},
    {Failure::kCBit, "the C-bit is missing, out of range or not where CPUID says"},
    {Failure::kSnp, "SEV-SNP is active, this firmware knows SEV-ES only"},
    {Failure::kRdrand, "RDRAND gives no random numbers"},
    {Failure::kApHold, "the hypervisor broke the AP reset hold"},
    {Failure::kGhcbReply, "the hypervisor's reply in the GHCB is malformed"},
    {Failure::kVcUnsupported, "#VC for an event or instruction that the handler refuses"},
    {Failure::kVcNested, "#VC nested too deep"},
    {Failure::kException, "unexpected exception"},
    {Failure::kNoFwCfg, "no fw_cfg device"},
    {Failure::kFwCfgTransfer, "fw_cfg did not transfer what was asked for"},
    {Failure::kMemoryMap, "the memory map from fw_cfg is malformed"},
    {Failure::kNoMemory, "not enough memory below 3 GiB"},
    {Failure::kAcpiTables, "the ACPI table loader script from fw_cfg is malformed"},
    {Failure::kNoKernel, "no kernel was given"},
    {Failure::kNotBzImage, "the kernel is neither a bzImage nor an ELF file"},
    {Failure::kKernelTooOld, "the kernel's boot protocol is older than 2.12"},
    {Failure::kKernelNot64Bit, "the kernel has no 64-bit entry"},
    {Failure::kKernelTruncated, "the kernel is shorter than its header says"},
    {Failure::kKernelHeader, "the kernel's setup header is malformed"},
    {Failure::kCommandLine, "the command line is longer than the kernel takes"},
    {Failure::kInitrd, "the initrd finds no room where the kernel takes it"},
    {Failure::kHashesTable, "the table of kernel hashes is malformed"},
    {Failure::kKernelHash, "the kernel is not the one that was measured"},
    {Failure::kInitrdHash, "the initrd is not the one that was measured"},
    {Failure::kCommandLineHash, "the command line is not the one that was measured"},
    {Failure::kElf, "the kernel's ELF headers are malformed, or it does not load between 1 MiB and 3 GiB"},
    {Failure::kElfMachine, "the kernel is not a static ELF executable for x86"},
    {Failure::kElfEntry, "the ELF kernel has neither a 64-bit entry nor a PVH entry in what it loads"},
};
}  // namespace

const char* failure_text(Failure failure) noexcept {
  for (const FailureText& entry : kTexts) {
    if (entry.failure == failure) return entry.text;
  }
  return "unknown failure";
}

bool is_failure(Failure failure) noexcept {
  for (const FailureText& entry : kTexts) {
    if (entry.failure == failure) return true;
  }
  return false;
}

}  // namespace sevisor::firmware
