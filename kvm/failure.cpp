#include "kvm/failure.hpp"

#include <cerrno>
#include <fmt/format.h>
#include <sys/resource.h>

#include "sev/firmware_status.hpp"

namespace sevisor::kvm {

namespace {

using sev::FirmwareStatus;

std::string advice_for(int error_number, std::uint32_t firmware_status) {
  switch (static_cast<FirmwareStatus>(firmware_status)) {
    case FirmwareStatus::kPolicyFailure:
      return "Choose another --policy: this platform does not allow the one asked for.";
    case FirmwareStatus::kBadMeasurement:
      return "Make the session for this platform and this policy, or the secret for this very launch.";
    case FirmwareStatus::kInvalidCertificate:
      return "Give the guest owner's certificate that belongs to the session.";
    case FirmwareStatus::kUnsupported:
      return "Turn SEV-SNP off in the BIOS: Secure Processor firmware with AMD's bulletin SB-3023 refuses SEV-ES while "
             "SNP is on (docs/epyc.md).";
    case FirmwareStatus::kInvalidPlatformState:
    case FirmwareStatus::kInvalidConfig:
      return "Check that SEV-ES is enabled in the BIOS and in kvm_amd (parameter sev_es=1).";
    case FirmwareStatus::kResourceLimit:
    case FirmwareStatus::kAsidOwned:
    case FirmwareStatus::kInvalidAsid:
      return "End other SEV guests, or raise the number of SEV-ES ASIDs in the BIOS.";
    case FirmwareStatus::kHardwareErrorPlatform:
      return "Try again, and reset the machine if it comes back: the Secure Processor reports a hardware fault.";
    case FirmwareStatus::kHardwareErrorUnsafe:
      return "Reset the machine: the Secure Processor reports a hardware fault.";
    default:
      break;
  }
  switch (error_number) {
    case EACCES:
    case EPERM:
      return "Join the group kvm, or have the device given to it; 'sevisor doctor' tells the command.";
    case ENOENT:
    case ENXIO:
    case ENODEV:
    case ENOTTY:
      return "'sevisor doctor' tells what this machine lacks: a module, its parameter, a BIOS switch or the processor. "
             "--host emulated needs none of them.";
    case ENOMEM:
      return "Raise the limit on locked memory (ulimit -l), or give the guest less memory.";
    case EBUSY:
      return "End other SEV-ES guests, or raise the number of SEV-ES ASIDs in the BIOS.";
    case ETIMEDOUT:
      return "Reset the machine: the Secure Processor does not answer.";
    default:
      return {};
  }
}

}  // namespace

std::string failure_text(int error_number, std::uint32_t firmware_status) {
  if (firmware_status == 0) return errno_text(error_number);
  if (firmware_status == static_cast<std::uint32_t>(FirmwareStatus::kNoFirmwareCall)) {
    return fmt::format("{}; the Secure Processor was not reached (NO_FW_CALL)", errno_text(error_number));
  }
  return fmt::format("{}; the Secure Processor says {}", errno_text(error_number),
                     sev::firmware_status_text(firmware_status));
}

std::string pinning_advice(std::uint64_t wanted) {
  rlimit limit{};
  if (::getrlimit(RLIMIT_MEMLOCK, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) {
    return "Give the guest less memory: the system has not so much to pin.";
  }
  return fmt::format(
      "An encrypted guest's memory is pinned, and counts as locked: this process may lock {} KiB, and wanted {} KiB "
      "more. "
      "Raise the limit ('ulimit -l', or memlock in /etc/security/limits.conf), or give the guest less memory.",
      limit.rlim_cur >> 10, wanted >> 10);
}

void throw_failure(std::string tried, int error_number, std::uint32_t firmware_status, std::string advice) {
  if (advice.empty()) advice = advice_for(error_number, firmware_status);
  // These two are about files of the guest owner, not about the host.
  const auto status = static_cast<FirmwareStatus>(firmware_status);
  const bool bad_file = status == FirmwareStatus::kBadMeasurement || status == FirmwareStatus::kInvalidCertificate;
  throw Error(bad_file ? ExitCode::kBadUsage : ExitCode::kHostCannot, std::move(tried),
              failure_text(error_number, firmware_status), std::move(advice));
}

}  // namespace sevisor::kvm
