#include "emulator/kvm/sev_device.hpp"

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <iterator>
#include <span>
#include <vector>

#include "emulator/kvm/user_memory.hpp"

namespace sevisor::emulator {

namespace {

constexpr std::uint32_t kLargestAllocation = 4 << 20;  // bytes that the kernel's allocator gives at a time

int as_errno(sev::FirmwareStatus status, sev_issue_cmd& command) {
  command.error = static_cast<std::uint32_t>(status);
  return status == sev::FirmwareStatus::kSuccess ? 0 : -EIO;
}

std::uint64_t address_of(const std::vector<std::byte>& bytes) {
  return bytes.empty() ? 0 : reinterpret_cast<std::uintptr_t>(bytes.data());
}

}  // namespace

struct SevDevice::Row {
  std::uint32_t id;
  bool for_writers;  // EPERM for others, before anything is looked at
  int (SevDevice::*handler)(sev_issue_cmd&);
};

const SevDevice::Row SevDevice::kRows[] = {
    {SEV_FACTORY_RESET, true, &SevDevice::factory_reset},
    {SEV_PLATFORM_STATUS, false, &SevDevice::platform_status},
    {SEV_PEK_GEN, true, &SevDevice::pek_gen},
    {SEV_PEK_CSR, true, &SevDevice::pek_csr},
    {SEV_PDH_GEN, true, &SevDevice::pdh_gen},
    {SEV_PDH_CERT_EXPORT, false, &SevDevice::pdh_cert_export},
    {SEV_PEK_CERT_IMPORT, true, &SevDevice::pek_cert_import},
    {SEV_GET_ID, false, &SevDevice::get_id},
    {SEV_GET_ID2, false, &SevDevice::get_id2},
};

int SevDevice::ioctl(unsigned long request, void* argument) {
  if ((request & 0xffffffff) != SEV_ISSUE_CMD) return -EINVAL;
  sev_issue_cmd command{};
  if (!get_user(command, argument)) return -EFAULT;
  const std::uint32_t id = command.cmd;
  const Row* row = std::find_if(std::begin(kRows), std::end(kRows), [id](const Row& r) { return r.id == id; });
  if (row == std::end(kRows)) return -EINVAL;
  const int result = row->for_writers && !writable_ ? -EPERM : (this->*row->handler)(command);
  return put_user(argument, command) ? result : -EFAULT;
}

int SevDevice::initialise(sev_issue_cmd& command) { return as_errno(platform_->initialise(), command); }

int SevDevice::factory_reset(sev_issue_cmd& command) {
  if (platform_->state() == psp::PlatformState::kWorking) return -EBUSY;
  if (platform_->state() == psp::PlatformState::kInit) {
    if (const int result = as_errno(platform_->firmware(psp::Command::kShutdown), command); result != 0) return result;
  }
  return as_errno(platform_->firmware(psp::Command::kPlatformReset), command);
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

int SevDevice::pek_gen(sev_issue_cmd& command) {
  if (const int result = initialise(command); result != 0) return result;
  return as_errno(platform_->firmware(psp::Command::kPekGen), command);
}

int SevDevice::pdh_gen(sev_issue_cmd& command) {
  if (const int result = initialise(command); result != 0) return result;
  return as_errno(platform_->firmware(psp::Command::kPdhGen), command);
}

int SevDevice::pek_csr(sev_issue_cmd& command) {
  sev_user_data_pek_csr data{};
  if (!get_user(data, user_pointer(command.data))) return -EFAULT;
  std::vector<std::byte> request;
  if (data.address != 0 && data.length != 0) {  // without one of them it is a question for the length
    if (data.length > kvm::kSevBlobMaxSize) return -EFAULT;
    request.resize(data.length);
  }
  if (const int result = initialise(command); result != 0) return result;
  psp::OneBuffer buffer{.address = address_of(request), .length = static_cast<std::uint32_t>(request.size())};
  const int result = as_errno(platform_->firmware(psp::Command::kPekCsr, buffer), command);
  data.length = buffer.length;
  if (!put_user(user_pointer(command.data), data)) return -EFAULT;
  if (result != 0) return result;
  return copy_to_user(user_pointer(data.address), std::span(request).first(buffer.length)) ? 0 : -EFAULT;
}

int SevDevice::pek_cert_import(sev_issue_cmd& command) {
  sev_user_data_pek_cert_import data{};
  if (!get_user(data, user_pointer(command.data))) return -EFAULT;
  const auto fetch = [](std::vector<std::byte>& blob, std::uint64_t address, std::uint32_t length) {
    if (address == 0 || length == 0 || length > kvm::kSevBlobMaxSize) return -EINVAL;
    blob.resize(length);
    return copy_from_user(blob, user_pointer(address)) ? 0 : -EFAULT;
  };
  std::vector<std::byte> pek;
  std::vector<std::byte> oca;
  if (const int result = fetch(pek, data.pek_cert_address, data.pek_cert_len); result != 0) return result;
  if (const int result = fetch(oca, data.oca_cert_address, data.oca_cert_len); result != 0) return result;
  if (const int result = initialise(command); result != 0) return result;
  psp::PekCertImport request{.pek_address = address_of(pek),
                             .pek_length = data.pek_cert_len,
                             .reserved = 0,
                             .oca_address = address_of(oca),
                             .oca_length = data.oca_cert_len};
  return as_errno(platform_->firmware(psp::Command::kPekCertImport, request), command);
}

int SevDevice::pdh_cert_export(sev_issue_cmd& command) {
  if (platform_->state() == psp::PlatformState::kUninit) {
    if (!writable_) return -EPERM;
    if (const int result = initialise(command); result != 0) return result;
  }
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
    request.pdh_address = address_of(pdh);
    request.pdh_length = data.pdh_cert_len;
    request.chain_address = address_of(chain);
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

// The older form: room for two sockets, of which this machine has one.
int SevDevice::get_id(sev_issue_cmd& command) {
  sev_user_data_get_id data{};
  psp::OneBuffer buffer{.address = reinterpret_cast<std::uintptr_t>(&data), .length = sizeof data};
  const int result = as_errno(platform_->firmware(psp::Command::kGetId, buffer), command);
  if (result != 0) return result;
  return put_user(user_pointer(command.data), data) ? 0 : -EFAULT;
}

int SevDevice::get_id2(sev_issue_cmd& command) {
  sev_user_data_get_id2 data{};
  if (!get_user(data, user_pointer(command.data))) return -EFAULT;
  std::vector<std::byte> id;
  if (data.address != 0 && data.length != 0) {
    if (data.length > kLargestAllocation) return -ENOMEM;
    id.resize(data.length);
  }
  psp::OneBuffer buffer{.address = address_of(id), .length = static_cast<std::uint32_t>(id.size())};
  const int result = as_errno(platform_->firmware(psp::Command::kGetId, buffer), command);
  data.length = buffer.length;
  if (!put_user(user_pointer(command.data), data)) return -EFAULT;
  if (result != 0) return result;
  return copy_to_user(user_pointer(data.address), std::span(id).first(buffer.length)) ? 0 : -EFAULT;
}

}  // namespace sevisor::emulator
