// KVM_GET_MSRS, of a vCPU and of /dev/kvm. Linux arch/x86/kvm/x86.c msr_io().
#pragma once

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "emulator/kvm/capabilities.hpp"
#include "emulator/kvm/user_memory.hpp"
#include "kvm/abi.hpp"

namespace sevisor::emulator {

// `read(index)` is an optional value; the first that is none ends it. How many were read, or a negative errno.
template <class Read>
int read_msr_entries(void* argument, Read read) {
  kvm_msrs header{};
  if (!get_user(header, argument)) return -EFAULT;
  if (header.nmsrs >= kMaxMsrEntries) return -E2BIG;
  std::vector<kvm_msr_entry> entries(header.nmsrs);
  auto* first = static_cast<std::byte*>(argument) + offsetof(kvm_msrs, entries);
  if (!copy_from_user(std::as_writable_bytes(std::span(entries)), first)) return -EFAULT;
  int done = 0;
  for (kvm_msr_entry& entry : entries) {
    const auto value = read(entry.index);
    if (!value) break;
    entry.data = *value;
    ++done;
  }
  return copy_to_user(first, std::as_bytes(std::span(entries))) ? done : -EFAULT;
}

}  // namespace sevisor::emulator
