// What the handlers of KVM_MEMORY_ENCRYPT_OP share. Part of the VM's implementation.
#pragma once

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "emulator/kvm/user_memory.hpp"
#include "emulator/kvm/vm.hpp"

namespace sevisor::emulator {

inline std::uint64_t address_of(const void* pointer) { return reinterpret_cast<std::uintptr_t>(pointer); }

inline kvm_sev_cmd& as_command(void* argument) { return *static_cast<kvm_sev_cmd*>(argument); }

// A blob that KVM copies in for the firmware: EINVAL when empty or too long.
inline int copy_blob(std::vector<std::byte>& blob, std::uint64_t address, std::uint32_t length) {
  if (address == 0 || length == 0 || length > kvm::kSevBlobMaxSize) return -EINVAL;
  blob.resize(length);
  return copy_from_user(blob, user_pointer(address)) ? 0 : -EFAULT;
}

inline int set_error(kvm_sev_cmd& command, sev::FirmwareStatus status) {
  command.error = static_cast<std::uint32_t>(status);
  return status == sev::FirmwareStatus::kSuccess ? 0 : -EIO;
}

inline bool wraps(std::uint64_t address, std::uint64_t size) { return address + size < address; }

// SEND_UPDATE_DATA, RECEIVE_UPDATE_DATA, LAUNCH_SECRET: the firmware wants contiguous memory, which one page surely is.
inline bool crosses_page(std::uint64_t address, std::uint64_t size) {
  return size > kPageSize || address % kPageSize + size > kPageSize;
}

template <class Buffer>
int Vm::firmware(kvm_sev_cmd& command, psp::Command id, Buffer& buffer) {
  if (!sev_fd_valid(sev_.fd)) return -EBADF;
  return set_error(command, platform_->firmware(id, buffer));
}

}  // namespace sevisor::emulator
