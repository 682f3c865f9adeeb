// KVM_MEMORY_ENCRYPT_OP and the encrypted regions. Linux arch/x86/kvm/svm/sev.c sev_mem_enc_ioctl().
#include <algorithm>
#include <array>
#include <cerrno>
#include <vector>

#include "base/bytes.hpp"
#include "emulator/kvm/sev_command.hpp"
#include "emulator/kvm/sev_device.hpp"
#include "emulator/kvm/vcpu.hpp"

namespace sevisor::emulator {

using psp::Command;
using sev::FirmwareStatus;

namespace {

constexpr std::uint64_t kBlock = 16;  // what the firmware works in, bytes

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
    {KVM_SEV_SEND_START, &Vm::send_start},
    {KVM_SEV_SEND_UPDATE_DATA, &Vm::send_update_data},
    {KVM_SEV_SEND_FINISH, &Vm::send_finish},
    {KVM_SEV_SEND_CANCEL, &Vm::send_cancel},
    {KVM_SEV_RECEIVE_START, &Vm::receive_start},
    {KVM_SEV_RECEIVE_UPDATE_DATA, &Vm::receive_update_data},
    {KVM_SEV_RECEIVE_FINISH, &Vm::receive_finish},
    {KVM_SEV_GET_ATTESTATION_REPORT, &Vm::attestation_report},
    {kvm::kSevSnpLaunchStart, &Vm::snp_guests_only},
    {kvm::kSevSnpLaunchFinish, &Vm::snp_guests_only},
};

// What a mirror may ask for: the rest is its owner's.
namespace {
constexpr std::uint32_t kMirrorCommands[] = {KVM_SEV_LAUNCH_UPDATE_VMSA, KVM_SEV_GUEST_STATUS, KVM_SEV_DBG_DECRYPT,
                                             KVM_SEV_DBG_ENCRYPT};
}

int Vm::memory_encrypt_op(void* argument) {
  if (argument == nullptr) return 0;  // asks whether SEV is there
  kvm_sev_cmd command{};
  if (!get_user(command, argument)) return -EFAULT;
  if (owner_ != nullptr && std::ranges::find(kMirrorCommands, command.id) == std::end(kMirrorCommands)) return -EINVAL;
  const auto* row = std::find_if(std::begin(kSevCommands), std::end(kSevCommands),
                                 [&](const Ioctl<Vm>& r) { return r.request == command.id; });
  if (row == std::end(kSevCommands)) return -EINVAL;
  const int result = (this->*row->handler)(&command);
  return put_user(argument, command) ? result : -EFAULT;
}

bool Vm::sev_fd_valid(std::uint32_t fd) const {
  return dynamic_cast<SevDevice*>(platform_->descriptors().find(static_cast<int>(fd)).get()) != nullptr;
}

int Vm::sev_init(void* argument) {
  if (type_ != kvm::kVmTypeDefault) return -EINVAL;
  return make_encrypted(as_command(argument), {}, false);
}

int Vm::sev_es_init(void* argument) {
  if (type_ != kvm::kVmTypeDefault) return -EINVAL;
  return make_encrypted(as_command(argument), {.ghcb_version = 1}, true);
}

int Vm::sev_init2(void* argument) {
  if (!platform_->personality().vm_types || !needs_init()) return -EINVAL;
  kvm_sev_cmd& command = as_command(argument);
  kvm::SevInit init{};
  if (!get_user(init, user_pointer(command.data))) return -EFAULT;
  return make_encrypted(command, init, type_ == kvm::kVmTypeSevEs);
}

int Vm::make_encrypted(kvm_sev_cmd& command, const kvm::SevInit& init, bool es) {
  constexpr std::uint16_t kMaxGhcbVersion = 2;
  if (!vcpus_.empty()) return -EINVAL;
  if (encrypted()) return -platform_->personality().second_init_errno;
  if (init.flags != 0) return -EINVAL;
  if ((init.vmsa_features & ~(es ? kSupportedVmsaFeatures : 0)) != 0) return -EINVAL;
  if (init.ghcb_version > (es ? kMaxGhcbVersion : 0)) return -EINVAL;
  const std::uint32_t asid = platform_->take_asid(memory_, es);
  if (asid == 0) return -EBUSY;
  if (const auto status = platform_->initialise(); status != FirmwareStatus::kSuccess) {
    platform_->give_back_asid(asid);
    return set_error(command, status);
  }
  initialised_ = true;
  sev_.asid = asid;
  sev_.es = es;
  sev_.ghcb_version = es && init.ghcb_version == 0 ? kMaxGhcbVersion : init.ghcb_version;
  sev_.vmsa_features = init.vmsa_features;
  return 0;
}

// Kernels with VM types have SNP's commands; LAUNCH_UPDATE is EINVAL for others, as any unknown one is.
int Vm::snp_guests_only(void* /*argument*/) { return platform_->personality().vm_types ? -ENOTTY : -EINVAL; }

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
  if (params.len == 0 || wraps(params.src_uaddr, params.len) || params.dst_uaddr == 0) return -EINVAL;
  if (wraps(params.dst_uaddr, params.len)) return -EINVAL;
  const std::uint64_t guest = encrypt ? params.dst_uaddr : params.src_uaddr;
  const std::uint64_t first = align_down(guest, kBlock);
  const std::uint64_t size = align_up(guest + params.len, kBlock) - first;
  // KVM pins both, to write the destination.
  if (!user_range_pinnable(user_pointer(params.src_uaddr), params.len, Pin::kRead)) return -ENOMEM;
  if (!user_range_pinnable(user_pointer(params.dst_uaddr), params.len, Pin::kWrite)) return -ENOMEM;
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

int Vm::register_region(void* argument) {
  kvm_enc_region region{};
  if (!get_user(region, argument)) return -EFAULT;
  if (!encrypted()) return -ENOTTY;
  if (owner_ != nullptr) return -EINVAL;
  if (region.size == 0 || wraps(region.addr, region.size)) return -EINVAL;
  const Pin pin = platform_->personality().pins_regions_to_read ? Pin::kRead : Pin::kWrite;
  if (!user_range_pinnable(user_pointer(region.addr), region.size, pin)) return -ENOMEM;
  sev_.regions.push_back({region.addr, region.size});
  return 0;
}

int Vm::unregister_region(void* argument) {
  kvm_enc_region region{};
  if (!get_user(region, argument)) return -EFAULT;
  if (owner_ != nullptr) return -EINVAL;
  if (!encrypted()) return -ENOTTY;
  const auto found = std::find_if(sev_.regions.begin(), sev_.regions.end(),
                                  [&](const Region& r) { return r.address == region.addr && r.size == region.size; });
  if (found == sev_.regions.end()) return -EINVAL;
  sev_.regions.erase(found);
  memory_.write_back_all();  // the kernel flushes all caches here
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
