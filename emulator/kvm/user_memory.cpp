#include "emulator/kvm/user_memory.hpp"

#include <cerrno>
#include <cstring>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/bytes.hpp"

namespace sevisor::emulator {

namespace {

using Transfer = ssize_t (*)(pid_t, const iovec*, unsigned long, const iovec*, unsigned long, unsigned long);

// process_vm_readv and process_vm_writev on this very process report a bad address instead of a signal. Where a sandbox
// forbids them, a null pointer is all that can be told.
bool transfer(Transfer call, void* own, void* users, std::size_t size) {
  if (size == 0) return true;
  if (users == nullptr) return false;
  const iovec local{own, size};
  const iovec remote{users, size};
  const ssize_t done = call(::getpid(), &local, 1, &remote, 1, 0);
  if (done < 0 && (errno == ENOSYS || errno == EPERM)) {
    if (call == ::process_vm_readv) {
      std::memcpy(own, users, size);
    } else {
      std::memcpy(users, own, size);
    }
    return true;
  }
  return done == static_cast<ssize_t>(size);
}

}  // namespace

bool copy_from_user(std::span<std::byte> to, const void* from) {
  return transfer(::process_vm_readv, to.data(), const_cast<void*>(from), to.size());
}

bool copy_to_user(void* to, std::span<const std::byte> from) {
  return transfer(::process_vm_writev, const_cast<std::byte*>(from.data()), to, from.size());
}

bool user_range_mapped(const void* address, std::size_t size) {
  const auto begin = align_down(reinterpret_cast<std::uintptr_t>(address), kPageSize);
  const auto end = align_up(reinterpret_cast<std::uintptr_t>(address) + size, kPageSize);
  return ::msync(reinterpret_cast<void*>(begin), end - begin, MS_ASYNC) == 0;
}

}  // namespace sevisor::emulator
