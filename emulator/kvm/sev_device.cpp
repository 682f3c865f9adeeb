#include "emulator/kvm/sev_device.hpp"

#include <cerrno>
#include <cstdint>
#include <span>
#include <vector>

#include "emulator/kvm/user_memory.hpp"

namespace sevisor::emulator {

namespace {
int as_errno(sev::FirmwareStatus status, sev_issue_cmd& command) {
  command.error = static_cast<std::uint32_t>(status);
  return status == sev::FirmwareStatus::kSuccess ? 0 : -EIO;
}
}  // namespace

int SevDevice::ioctl(unsigned long request, void* argument) {
  if ((request & 0xffffffff) != SEV_ISSUE_CMD) return -EINVAL;
  sev_issue_cmd command{};
  if (!get_user(command, argument)) return -EFAULT;
  int result = 0;
  switch (command.cmd) {
    case SEV_FACTORY_RESET:
      result = factory_reset(command);
      break;
    case SEV_PLATFORM_STATUS:
      result = platform_status(command);
      break;
    case SEV_PDH_CERT_EXPORT:
      result = pdh_cert_export(command);
      break;
    case SEV_PEK_GEN:
    case SEV_PEK_CSR:
    case SEV_PDH_GEN:
    case SEV_PEK_CERT_IMPORT:
    case SEV_GET_ID:
    case SEV_GET_ID2:
      // The identity of this platform is made once and stays: the firmware says that it does not know the command.
      result = as_errno(sev::FirmwareStatus::kUnsupported, command);
      break;
    default:
      return -EINVAL;
  }
  return put_user(argument, command) ? result : -EFAULT;
}

int SevDevice::factory_reset(sev_issue_cmd& command) {
  if (!writable_) return -EPERM;
  if (platform_->state() == psp::PlatformState::kWorking) return -EBUSY;
  if (platform_->state() == psp::PlatformState::kInit) {
    const auto status = platform_->firmware(psp::Command::kShutdown);
    if (status != sev::FirmwareStatus::kSuccess) return as_errno(status, command);
  }
  return as_errno(platform_->firmware(psp::Command::kPlatformReset), command);
}

// Linux drivers/crypto/ccp/sev-dev.c sev_ioctl_do_pdh_export().
int SevDevice::pdh_cert_export(sev_issue_cmd& command) {
  sev_user_data_pdh_cert_export data{};
  if (!get_user(data, user_pointer(command.data))) return -EFAULT;
  psp::PdhCertExport request{};
  std::vector<std::byte> pdh;
  std::vector<std::byte> chain;
  // Without one of these it is a question for the lengths.
  if (data.pdh_cert_address != 0 && data.pdh_cert_len != 0 && data.cert_chain_address != 0) {
    if (data.pdh_cert_len > kvm::kSevBlobMaxSize || data.cert_chain_len > kvm::kSevBlobMaxSize) return -EFAULT;
    pdh.resize(data.pdh_cert_len);
    chain.resize(data.cert_chain_len);
    request.pdh_address = reinterpret_cast<std::uintptr_t>(pdh.data());
    request.pdh_length = data.pdh_cert_len;
    request.chain_address = reinterpret_cast<std::uintptr_t>(chain.data());
    request.chain_length = data.cert_chain_len;
  }
  const int result = as_errno(platform_->firmware(psp::Command::kPdhCertExport, request), command);
  data.pdh_cert_len = request.pdh_length;
  data.cert_chain_len = request.chain_length;
  if (!put_user(user_pointer(command.data), data)) return -EFAULT;
  if (result != 0) return result;
  return copy_to_user(user_pointer(data.pdh_cert_address), std::span(pdh).first(request.pdh_length)) &&
                 copy_to_user(user_pointer(data.cert_chain_address), std::span(chain).first(request.chain_length))
             ? 0
             : -EFAULT;
}

int SevDevice::platform_status(sev_issue_cmd& command) {
  psp::PlatformStatus status{};
  const int result = as_errno(platform_->firmware(psp::Command::kPlatformStatus, status), command);
  if (result != 0) return result;
  sev_user_data_status data{};
  data.api_major = status.api_major;
  data.api_minor = status.api_minor;
  data.state = status.state;
  data.flags = status.flags;
  data.build = status.build;
  data.guest_count = status.guest_count;
  return put_user(user_pointer(command.data), data) ? 0 : -EFAULT;
}

}  // namespace sevisor::emulator
