// Launching a guest: commands of KVM_MEMORY_ENCRYPT_OP. Linux arch/x86/kvm/svm/sev.c sev_launch_*().
#include <algorithm>
#include <cerrno>
#include <span>
#include <vector>

#include "emulator/kvm/sev_command.hpp"
#include "emulator/kvm/vcpu.hpp"

namespace sevisor::emulator {

using psp::Command;

int Vm::launch_start(void* argument) {
  kvm_sev_cmd& command = as_command(argument);
  if (!encrypted()) return -ENOTTY;
  kvm_sev_launch_start params{};
  if (!get_user(params, user_pointer(command.data))) return -EFAULT;
  std::vector<std::byte> certificate;
  std::vector<std::byte> session;
  psp::LaunchStart start{};
  start.handle = params.handle;
  start.policy = params.policy;
  if (params.dh_uaddr != 0) {
    if (const int result = copy_blob(certificate, params.dh_uaddr, params.dh_len); result != 0) return result;
    start.dh_address = address_of(certificate.data());
    start.dh_length = params.dh_len;
  }
  if (params.session_uaddr != 0) {
    if (const int result = copy_blob(session, params.session_uaddr, params.session_len); result != 0) return result;
    start.session_address = address_of(session.data());
    start.session_length = params.session_len;
  }
  if (!sev_fd_valid(command.sev_fd)) return -EBADF;
  if (const int result = set_error(command, platform_->firmware(Command::kLaunchStart, start)); result != 0) {
    return result;
  }
  if (const int result = bind(command, start.handle); result != 0) return result;
  params.handle = sev_.handle;
  return put_user(user_pointer(command.data), params) ? 0 : -EFAULT;
}

int Vm::bind(kvm_sev_cmd& command, std::uint32_t handle) {
  psp::Activate activate{.handle = handle, .asid = sev_.asid};
  if (const int result = set_error(command, platform_->firmware(Command::kActivate, activate)); result != 0) {
    psp::HandleOnly only{handle};
    (void)platform_->firmware(Command::kDecommission, only);
    return result;
  }
  sev_.handle = handle;
  sev_.fd = command.sev_fd;
  return 0;
}

int Vm::launch_update_data(void* argument) {
  kvm_sev_cmd& command = as_command(argument);
  if (!encrypted()) return -ENOTTY;
  kvm_sev_launch_update_data params{};
  if (!get_user(params, user_pointer(command.data))) return -EFAULT;
  if (params.len == 0 || wraps(params.uaddr, params.len)) return -EINVAL;
  // KVM pins the pages first.
  if (!user_range_pinnable(user_pointer(params.uaddr), params.len, Pin::kWrite)) return -ENOMEM;
  psp::LaunchRegion region{.handle = sev_.handle, .reserved = 0, .address = params.uaddr, .length = params.len};
  return firmware(command, Command::kLaunchUpdateData, region);
}

int Vm::launch_update_vmsa(void* argument) {
  kvm_sev_cmd& command = as_command(argument);
  if (!encrypted_state()) return -ENOTTY;
  for (const auto& vcpu : vcpus_) {
    if (const int result = vcpu->make_vmsa(); result != 0) return result;
    psp::LaunchRegion region{.handle = sev_.handle,
                             .reserved = 0,
                             .address = address_of(vcpu->vmsa_page().data()),
                             .length = static_cast<std::uint32_t>(vcpu->vmsa_page().size())};
    if (const int result = firmware(command, Command::kLaunchUpdateVmsa, region); result != 0) return result;
    vcpu->set_protected();
  }
  return 0;
}

int Vm::launch_measure(void* argument) {
  kvm_sev_cmd& command = as_command(argument);
  if (!encrypted()) return -ENOTTY;
  kvm_sev_launch_measure params{};
  if (!get_user(params, user_pointer(command.data))) return -EFAULT;
  // Without an address the length goes to the firmware as 0: a question for the right one, or wrong.
  if (params.uaddr != 0 && params.len > kvm::kSevBlobMaxSize) return -EINVAL;
  std::vector<std::byte> blob(params.uaddr != 0 ? params.len : 0);
  psp::LaunchRegion region{.handle = sev_.handle,
                           .reserved = 0,
                           .address = blob.empty() ? 0 : address_of(blob.data()),
                           .length = static_cast<std::uint32_t>(blob.size())};
  const int result = firmware(command, Command::kLaunchMeasure, region);
  const bool asked = params.len == 0;
  if (result == -EBADF || (result != 0 && !asked)) return result;
  params.len = region.length;
  if (!asked && !copy_to_user(user_pointer(params.uaddr), std::span(blob).first(params.len))) return -EFAULT;
  return put_user(user_pointer(command.data), params) ? result : -EFAULT;
}

int Vm::launch_secret(void* argument) {
  kvm_sev_cmd& command = as_command(argument);
  if (!encrypted()) return -ENOTTY;
  kvm_sev_launch_secret params{};
  if (!get_user(params, user_pointer(command.data))) return -EFAULT;
  if (params.guest_len == 0 || wraps(params.guest_uaddr, params.guest_len)) return -EINVAL;
  if (!user_range_pinnable(user_pointer(params.guest_uaddr), params.guest_len, Pin::kWrite)) return -ENOMEM;
  if (crosses_page(params.guest_uaddr, params.guest_len)) return -EINVAL;
  std::vector<std::byte> packet;
  std::vector<std::byte> header;
  if (const int result = copy_blob(packet, params.trans_uaddr, params.trans_len); result != 0) return result;
  if (const int result = copy_blob(header, params.hdr_uaddr, params.hdr_len); result != 0) return result;
  psp::Packet secret{.handle = sev_.handle,
                     .reserved1 = 0,
                     .header_address = address_of(header.data()),
                     .header_length = params.hdr_len,
                     .reserved2 = 0,
                     .guest_address = params.guest_uaddr,
                     .guest_length = params.guest_len,
                     .reserved3 = 0,
                     .packet_address = address_of(packet.data()),
                     .packet_length = params.trans_len};
  return firmware(command, Command::kLaunchSecret, secret);
}

int Vm::launch_finish(void* argument) { return handle_command(argument, Command::kLaunchFinish); }

int Vm::attestation_report(void* argument) {
  kvm_sev_cmd& command = as_command(argument);
  if (!encrypted()) return -ENOTTY;
  kvm_sev_attestation_report params{};
  if (!get_user(params, user_pointer(command.data))) return -EFAULT;
  std::vector<std::byte> blob;
  if (params.len != 0 && params.uaddr != 0) {
    if (params.len > kvm::kSevBlobMaxSize) return -EINVAL;
    blob.resize(params.len);
  }
  psp::Attestation request{};
  request.handle = sev_.handle;
  request.address = blob.empty() ? 0 : address_of(blob.data());
  request.length = static_cast<std::uint32_t>(blob.size());
  if (!blob.empty()) std::copy(std::begin(params.mnonce), std::end(params.mnonce), request.mnonce);
  const bool query = params.len == 0;
  const int result = firmware(command, Command::kAttestation, request);
  if (result == -EBADF || (result != 0 && !query)) return result;
  params.len = request.length;
  if (result == 0 && !copy_to_user(user_pointer(params.uaddr), std::span(blob).first(params.len))) return -EFAULT;
  return put_user(user_pointer(command.data), params) ? result : -EFAULT;
}

}  // namespace sevisor::emulator
