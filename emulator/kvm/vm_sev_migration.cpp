// Sending a guest to another platform and receiving one: commands of KVM_MEMORY_ENCRYPT_OP. Linux
// arch/x86/kvm/svm/sev.c sev_send_*(), sev_receive_*(). KVM has no handler for the packets that carry a VMSA, so a
// SEV-ES guest cannot go this way; the firmware's own commands can do it.
#include <cerrno>
#include <span>
#include <vector>

#include "emulator/kvm/sev_command.hpp"

namespace sevisor::emulator {

using psp::Command;

namespace {
constexpr std::uint32_t kLargestAllocation = 4 << 20;  // bytes that the kernel's allocator gives at a time
}

int Vm::handle_command(void* argument, Command id) {
  if (!encrypted()) return -ENOTTY;
  psp::HandleOnly only{sev_.handle};
  return firmware(as_command(argument), id, only);
}

int Vm::send_finish(void* argument) { return handle_command(argument, Command::kSendFinish); }
int Vm::send_cancel(void* argument) { return handle_command(argument, Command::kSendCancel); }
int Vm::receive_finish(void* argument) { return handle_command(argument, Command::kReceiveFinish); }

int Vm::send_start(void* argument) {
  kvm_sev_cmd& command = as_command(argument);
  if (!encrypted()) return -ENOTTY;
  kvm_sev_send_start params{};
  if (!get_user(params, user_pointer(command.data))) return -EFAULT;
  psp::SendStart start{};
  start.handle = sev_.handle;
  if (params.session_len == 0) {
    const int result = firmware(command, Command::kSendStart, start);
    if (result == -EBADF) return result;
    params.session_len = start.session_length;
    return put_user(user_pointer(command.data), params) ? result : -EFAULT;
  }
  if (params.pdh_cert_uaddr == 0 || params.pdh_cert_len == 0 || params.session_uaddr == 0 ||
      params.session_len > kvm::kSevBlobMaxSize) {
    return -EINVAL;
  }
  std::vector<std::byte> pdh;
  std::vector<std::byte> platform;
  std::vector<std::byte> amd;
  std::vector<std::byte> session(params.session_len);
  if (const int result = copy_blob(pdh, params.pdh_cert_uaddr, params.pdh_cert_len); result != 0) return result;
  if (const int result = copy_blob(platform, params.plat_certs_uaddr, params.plat_certs_len); result != 0)
    return result;
  if (const int result = copy_blob(amd, params.amd_certs_uaddr, params.amd_certs_len); result != 0) return result;
  start.pdh_address = address_of(pdh.data());
  start.pdh_length = params.pdh_cert_len;
  start.platform_certificates_address = address_of(platform.data());
  start.platform_certificates_length = params.plat_certs_len;
  start.amd_certificates_address = address_of(amd.data());
  start.amd_certificates_length = params.amd_certs_len;
  start.session_address = address_of(session.data());
  start.session_length = params.session_len;
  const int result = firmware(command, Command::kSendStart, start);
  if (result == 0 &&
      !copy_to_user(user_pointer(params.session_uaddr), std::span(session).first(start.session_length))) {
    return -EFAULT;
  }
  params.policy = start.policy;
  params.session_len = start.session_length;
  return put_user(user_pointer(command.data), params) ? result : -EFAULT;
}

int Vm::send_update_data(void* argument) {
  kvm_sev_cmd& command = as_command(argument);
  if (!encrypted()) return -ENOTTY;
  kvm_sev_send_update_data params{};
  if (!get_user(params, user_pointer(command.data))) return -EFAULT;
  psp::Packet packet{};
  packet.handle = sev_.handle;
  if (params.trans_len == 0 || params.hdr_len == 0) {
    const int result = firmware(command, Command::kSendUpdateData, packet);
    if (result == -EBADF) return result;
    params.hdr_len = packet.header_length;
    params.trans_len = packet.packet_length;
    return put_user(user_pointer(command.data), params) ? result : -EFAULT;
  }
  if (params.trans_uaddr == 0 || params.guest_uaddr == 0 || params.guest_len == 0 || params.hdr_uaddr == 0) {
    return -EINVAL;
  }
  if (crosses_page(params.guest_uaddr, params.guest_len)) return -EINVAL;
  if (!user_range_pinnable(user_pointer(params.guest_uaddr), params.guest_len, Pin::kRead)) return -ENOMEM;
  if (params.hdr_len > kLargestAllocation || params.trans_len > kLargestAllocation) return -ENOMEM;
  std::vector<std::byte> header(params.hdr_len);
  std::vector<std::byte> data(params.trans_len);
  packet.header_address = address_of(header.data());
  packet.header_length = params.hdr_len;
  packet.guest_address = params.guest_uaddr;
  packet.guest_length = params.guest_len;
  packet.packet_address = address_of(data.data());
  packet.packet_length = params.trans_len;
  if (const int result = firmware(command, Command::kSendUpdateData, packet); result != 0) return result;
  return copy_to_user(user_pointer(params.trans_uaddr), data) && copy_to_user(user_pointer(params.hdr_uaddr), header)
             ? 0
             : -EFAULT;
}

int Vm::receive_start(void* argument) {
  kvm_sev_cmd& command = as_command(argument);
  if (!encrypted()) return -ENOTTY;
  kvm_sev_receive_start params{};
  if (!get_user(params, user_pointer(command.data))) return -EFAULT;
  std::vector<std::byte> pdh;
  std::vector<std::byte> session;
  if (const int result = copy_blob(pdh, params.pdh_uaddr, params.pdh_len); result != 0) return result;
  if (const int result = copy_blob(session, params.session_uaddr, params.session_len); result != 0) return result;
  if (!sev_fd_valid(command.sev_fd)) return -EBADF;
  psp::LaunchStart start{};
  start.handle = params.handle;
  start.policy = params.policy;
  start.dh_address = address_of(pdh.data());
  start.dh_length = params.pdh_len;
  start.session_address = address_of(session.data());
  start.session_length = params.session_len;
  if (const int result = set_error(command, platform_->firmware(Command::kReceiveStart, start)); result != 0) {
    return result;
  }
  if (const int result = bind(command, start.handle); result != 0) return result;
  params.handle = sev_.handle;
  return put_user(user_pointer(command.data), params) ? 0 : -EFAULT;
}

int Vm::receive_update_data(void* argument) {
  kvm_sev_cmd& command = as_command(argument);
  if (!encrypted()) return -EINVAL;  // all others: ENOTTY
  kvm_sev_receive_update_data params{};
  if (!get_user(params, user_pointer(command.data))) return -EFAULT;
  if (params.guest_uaddr == 0 || params.guest_len == 0) return -EINVAL;
  if (crosses_page(params.guest_uaddr, params.guest_len)) return -EINVAL;
  std::vector<std::byte> header;
  std::vector<std::byte> data;
  if (const int result = copy_blob(header, params.hdr_uaddr, params.hdr_len); result != 0) return result;
  if (const int result = copy_blob(data, params.trans_uaddr, params.trans_len); result != 0) return result;
  if (!user_range_pinnable(user_pointer(params.guest_uaddr), params.guest_len, Pin::kWrite)) return -ENOMEM;
  psp::Packet packet{};
  packet.handle = sev_.handle;
  packet.header_address = address_of(header.data());
  packet.header_length = params.hdr_len;
  packet.guest_address = params.guest_uaddr;
  packet.guest_length = params.guest_len;
  packet.packet_address = address_of(data.data());
  packet.packet_length = params.trans_len;
  return firmware(command, Command::kReceiveUpdateData, packet);
}

}  // namespace sevisor::emulator
