// KVM_MEMORY_ENCRYPT_OP and the encrypted regions. Linux arch/x86/kvm/svm/sev.c sev_mem_enc_ioctl().
#include <algorithm>
#include <array>
#include <cerrno>
#include <vector>

#include "base/bytes.hpp"
#include "emulator/kvm/sev_device.hpp"
#include "emulator/kvm/user_memory.hpp"
#include "emulator/kvm/vcpu.hpp"
#include "emulator/kvm/vm.hpp"

namespace sevisor::emulator {

using psp::Command;
using sev::FirmwareStatus;

namespace {

constexpr std::uint64_t kBlock = 16;  // what the firmware works in, bytes

std::uint64_t address_of(const void* pointer) { return reinterpret_cast<std::uintptr_t>(pointer); }

kvm_sev_cmd& as_command(void* argument) { return *static_cast<kvm_sev_cmd*>(argument); }

// A blob that KVM copies in for the firmware: EINVAL when empty or too long.
int copy_blob(std::vector<std::byte>& blob, std::uint64_t address, std::uint32_t length) {
  if (length == 0 || length > kvm::kSevBlobMaxSize) return -EINVAL;
  blob.resize(length);
  return copy_from_user(blob, user_pointer(address)) ? 0 : -EFAULT;
}

int set_error(kvm_sev_cmd& command, FirmwareStatus status) {
  command.error = static_cast<std::uint32_t>(status);
  return status == FirmwareStatus::kSuccess ? 0 : -EIO;
}

}  // namespace

// By kvm_sev_cmd.id. What is not here, KVM has no handler for.
const Ioctl<Vm> Vm::kSevCommands[] = {
    {KVM_SEV_INIT, &Vm::sev_init},
    {KVM_SEV_ES_INIT, &Vm::sev_es_init},
    {kvm::kSevInit2, &Vm::sev_init2},
    {KVM_SEV_LAUNCH_START, &Vm::launch_start},
    {KVM_SEV_LAUNCH_UPDATE_DATA, &Vm::launch_update_data},
    {KVM_SEV_LAUNCH_UPDATE_VMSA, &Vm::launch_update_vmsa},
    {KVM_SEV_LAUNCH_SECRET, &Vm::launch_secret},
    {KVM_SEV_LAUNCH_MEASURE, &Vm::launch_measure},
    {KVM_SEV_LAUNCH_FINISH, &Vm::launch_finish},
    {KVM_SEV_GUEST_STATUS, &Vm::guest_status},
    {KVM_SEV_DBG_DECRYPT, &Vm::dbg_decrypt},
    {KVM_SEV_DBG_ENCRYPT, &Vm::dbg_encrypt},
    {KVM_SEV_SEND_START, &Vm::not_in_firmware},
    {KVM_SEV_SEND_UPDATE_DATA, &Vm::not_in_firmware},
    {KVM_SEV_SEND_FINISH, &Vm::not_in_firmware},
    {KVM_SEV_SEND_CANCEL, &Vm::not_in_firmware},
    {KVM_SEV_RECEIVE_START, &Vm::not_in_firmware},
    {KVM_SEV_RECEIVE_UPDATE_DATA, &Vm::not_in_firmware},
    {KVM_SEV_RECEIVE_FINISH, &Vm::not_in_firmware},
    {KVM_SEV_GET_ATTESTATION_REPORT, &Vm::not_in_firmware},
};

int Vm::memory_encrypt_op(void* argument) {
  if (argument == nullptr) return 0;  // asks whether SEV is there
  kvm_sev_cmd command{};
  if (!get_user(command, argument)) return -EFAULT;
  const auto* row = std::find_if(std::begin(kSevCommands), std::end(kSevCommands),
                                 [&](const Ioctl<Vm>& r) { return r.request == command.id; });
  if (row == std::end(kSevCommands)) return -EINVAL;
  const int result = (this->*row->handler)(&command);
  return put_user(argument, command) ? result : -EFAULT;
}

bool Vm::sev_fd_valid(std::uint32_t fd) const {
  return dynamic_cast<SevDevice*>(platform_->descriptors().find(static_cast<int>(fd)).get()) != nullptr;
}

template <class Buffer>
int Vm::firmware(kvm_sev_cmd& command, Command id, Buffer& buffer) {
  if (!sev_fd_valid(sev_.fd)) return -EBADF;
  return set_error(command, platform_->firmware(id, buffer));
}

// No ASID is for guests without SEV-ES: KVM answers as on a machine configured so.
int Vm::sev_init(void*) { return has_protected_state() || !vcpus_.empty() || encrypted() ? -EINVAL : -ENOTTY; }

int Vm::sev_es_init(void* argument) {
  if (has_protected_state()) return -EINVAL;
  return make_encrypted(as_command(argument), {.ghcb_version = 1});
}

int Vm::sev_init2(void* argument) {
  if (!needs_init()) return -EINVAL;
  kvm_sev_cmd& command = as_command(argument);
  kvm::SevInit init{};
  if (!get_user(init, user_pointer(command.data))) return -EFAULT;
  return make_encrypted(command, init);
}

int Vm::make_encrypted(kvm_sev_cmd& command, const kvm::SevInit& init) {
  constexpr std::uint16_t kMaxGhcbVersion = 2;
  const bool es = type_ != kvm::kVmTypeSev;
  if (!vcpus_.empty() || encrypted() || init.flags != 0) return -EINVAL;
  if ((init.vmsa_features & ~(es ? kSupportedVmsaFeatures : 0)) != 0) return -EINVAL;
  if (init.ghcb_version > (es ? kMaxGhcbVersion : 0)) return -EINVAL;
  if (!es) return -ENOTTY;  // no ASIDs for them
  const std::uint32_t asid = platform_->take_asid(memory_);
  if (asid == 0) return -EBUSY;
  if (const auto status = platform_->initialise(); status != FirmwareStatus::kSuccess) {
    platform_->give_back_asid(asid);
    return set_error(command, status);
  }
  sev_.asid = asid;
  sev_.ghcb_version = init.ghcb_version == 0 ? kMaxGhcbVersion : init.ghcb_version;
  sev_.vmsa_features = init.vmsa_features;
  return 0;
}

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
  // KVM would make a second context of the firmware and lose the first.
  if (sev_.handle != 0) return set_error(command, FirmwareStatus::kInvalidGuestState);
  sev_.fd = command.sev_fd;
  if (const int result = firmware(command, Command::kLaunchStart, start); result != 0) return result;
  psp::Activate activate{.handle = start.handle, .asid = sev_.asid};
  if (const int result = firmware(command, Command::kActivate, activate); result != 0) {
    psp::HandleOnly only{start.handle};
    (void)platform_->firmware(Command::kDecommission, only);
    return result;
  }
  sev_.handle = start.handle;
  params.handle = sev_.handle;
  return put_user(user_pointer(command.data), params) ? 0 : -EFAULT;
}

int Vm::launch_update_data(void* argument) {
  kvm_sev_cmd& command = as_command(argument);
  if (!encrypted()) return -ENOTTY;
  kvm_sev_launch_update_data params{};
  if (!get_user(params, user_pointer(command.data))) return -EFAULT;
  if (params.len == 0 || params.uaddr + params.len < params.uaddr) return -EINVAL;
  // KVM pins the pages first.
  if (!user_range_mapped(user_pointer(params.uaddr), params.len)) return -ENOMEM;
  psp::LaunchRegion region{.handle = sev_.handle, .reserved = 0, .address = params.uaddr, .length = params.len};
  return firmware(command, Command::kLaunchUpdateData, region);
}

int Vm::launch_update_vmsa(void* argument) {
  kvm_sev_cmd& command = as_command(argument);
  if (!encrypted()) return -ENOTTY;
  if (vmsas_encrypted_) return -EINVAL;
  for (const auto& vcpu : vcpus_) {
    if (const int result = vcpu->make_vmsa(); result != 0) return result;
    psp::LaunchRegion region{.handle = sev_.handle,
                             .reserved = 0,
                             .address = address_of(vcpu->vmsa_page().data()),
                             .length = static_cast<std::uint32_t>(vcpu->vmsa_page().size())};
    if (const int result = firmware(command, Command::kLaunchUpdateVmsa, region); result != 0) return result;
    vcpu->set_protected();
  }
  vmsas_encrypted_ = true;
  return 0;
}

int Vm::launch_measure(void* argument) {
  kvm_sev_cmd& command = as_command(argument);
  if (!encrypted()) return -ENOTTY;
  kvm_sev_launch_measure params{};
  if (!get_user(params, user_pointer(command.data))) return -EFAULT;
  if (params.len > kvm::kSevBlobMaxSize) return -EINVAL;
  std::vector<std::byte> blob(params.len);
  psp::LaunchRegion region{.handle = sev_.handle,
                           .reserved = 0,
                           .address = blob.empty() ? 0 : address_of(blob.data()),
                           .length = params.len};
  const int result = firmware(command, Command::kLaunchMeasure, region);
  if (result == -EBADF) return result;
  params.len = region.length;
  if (!put_user(user_pointer(command.data), params)) return -EFAULT;
  if (result == 0 && !copy_to_user(user_pointer(params.uaddr), std::span(blob).first(params.len))) return -EFAULT;
  return result;
}

int Vm::launch_secret(void* argument) {
  kvm_sev_cmd& command = as_command(argument);
  if (!encrypted()) return -ENOTTY;
  kvm_sev_launch_secret params{};
  if (!get_user(params, user_pointer(command.data))) return -EFAULT;
  if (params.guest_len == 0 || params.guest_uaddr + params.guest_len < params.guest_uaddr) return -EINVAL;
  if (!user_range_mapped(user_pointer(params.guest_uaddr), params.guest_len)) return -ENOMEM;
  // The pages must be contiguous for the firmware, which only a single page surely is.
  if (align_down(params.guest_uaddr, kPageSize) != align_down(params.guest_uaddr + params.guest_len - 1, kPageSize)) {
    return -EINVAL;
  }
  std::vector<std::byte> packet;
  std::vector<std::byte> header;
  if (const int result = copy_blob(packet, params.trans_uaddr, params.trans_len); result != 0) return result;
  if (const int result = copy_blob(header, params.hdr_uaddr, params.hdr_len); result != 0) return result;
  psp::LaunchSecret secret{.handle = sev_.handle,
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

int Vm::launch_finish(void* argument) {
  if (!encrypted()) return -ENOTTY;
  psp::HandleOnly only{sev_.handle};
  return firmware(as_command(argument), Command::kLaunchFinish, only);
}

int Vm::guest_status(void* argument) {
  kvm_sev_cmd& command = as_command(argument);
  if (!encrypted()) return -ENOTTY;
  psp::GuestStatus status{};
  status.handle = sev_.handle;
  if (const int result = firmware(command, Command::kGuestStatus, status); result != 0) return result;
  const kvm_sev_guest_status params{.handle = status.handle, .policy = status.policy, .state = status.state};
  return put_user(user_pointer(command.data), params) ? 0 : -EFAULT;
}

int Vm::dbg_decrypt(void* argument) { return debug(as_command(argument), false); }
int Vm::dbg_encrypt(void* argument) { return debug(as_command(argument), true); }

// Any address and length: KVM rounds to the firmware's blocks through pages of its own.
int Vm::debug(kvm_sev_cmd& command, bool encrypt) {
  if (!encrypted()) return -ENOTTY;
  kvm_sev_dbg params{};
  if (!get_user(params, user_pointer(command.data))) return -EFAULT;
  if (params.len == 0 || params.src_uaddr + params.len < params.src_uaddr || params.dst_uaddr == 0) return -EINVAL;
  if (params.dst_uaddr + params.len < params.dst_uaddr) return -EINVAL;
  const std::uint64_t guest = encrypt ? params.dst_uaddr : params.src_uaddr;
  const std::uint64_t first = align_down(guest, kBlock);
  const std::uint64_t size = align_up(guest + params.len, kBlock) - first;
  if (!user_range_mapped(user_pointer(guest), params.len)) return -ENOMEM;
  for (std::uint64_t done = 0; done < size;) {
    const std::uint64_t at = first + done;
    const auto part = static_cast<std::uint32_t>(std::min(size - done, kPageSize - at % kPageSize));
    std::array<std::byte, kPageSize> plain;
    psp::Dbg dbg{
        .handle = sev_.handle, .reserved = 0, .source = at, .destination = address_of(plain.data()), .length = part};
    if (const int result = firmware(command, Command::kDbgDecrypt, dbg); result != 0) return result;
    // The bytes of this part that were asked for, from the first block's start.
    const std::uint64_t begin = std::max(at, guest);
    const std::uint64_t end = std::min(at + part, guest + params.len);
    const auto bytes = std::span(plain).subspan(begin - at, end - begin);
    if (encrypt) {
      if (!copy_from_user(bytes, user_pointer(params.src_uaddr + (begin - guest)))) return -EFAULT;
      dbg.source = address_of(plain.data());
      dbg.destination = at;
      if (const int result = firmware(command, Command::kDbgEncrypt, dbg); result != 0) return result;
    } else if (!copy_to_user(user_pointer(params.dst_uaddr + (begin - guest)), bytes)) {
      return -EFAULT;
    }
    done += part;
  }
  return 0;
}

int Vm::not_in_firmware(void* argument) {
  kvm_sev_cmd& command = as_command(argument);
  if (!encrypted()) return command.id == KVM_SEV_RECEIVE_UPDATE_DATA ? -EINVAL : -ENOTTY;
  return set_error(command, FirmwareStatus::kUnsupported);
}

int Vm::register_region(void* argument) {
  if (!encrypted()) return -ENOTTY;
  kvm_enc_region region{};
  if (!get_user(region, argument)) return -EFAULT;
  if (region.size == 0 || region.addr + region.size < region.addr) return -EINVAL;
  if (!user_range_mapped(user_pointer(region.addr), region.size)) return -ENOMEM;
  sev_.regions.push_back({region.addr, region.size});
  return 0;
}

int Vm::unregister_region(void* argument) {
  if (!encrypted()) return -ENOTTY;
  kvm_enc_region region{};
  if (!get_user(region, argument)) return -EFAULT;
  const auto found = std::find_if(sev_.regions.begin(), sev_.regions.end(),
                                  [&](const Region& r) { return r.address == region.addr && r.size == region.size; });
  if (found == sev_.regions.end()) return -EINVAL;
  sev_.regions.erase(found);
  return 0;
}

void Vm::decommission() {
  if (sev_.handle != 0) {
    psp::HandleOnly only{sev_.handle};
    (void)platform_->firmware(Command::kDeactivate, only);
    (void)platform_->firmware(Command::kDecommission, only);
  }
  if (sev_.asid != 0) platform_->give_back_asid(sev_.asid);
}

}  // namespace sevisor::emulator
