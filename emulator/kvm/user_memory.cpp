#include "emulator/kvm/user_memory.hpp"

#include <array>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <memory>
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

bool user_range_pinnable(const void* address, std::size_t size, Pin pin) {
  const auto begin = align_down(reinterpret_cast<std::uintptr_t>(address), kPageSize);
  const auto end = align_up(reinterpret_cast<std::uintptr_t>(address) + size, kPageSize);
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> maps(std::fopen("/proc/self/maps", "re"), std::fclose);
  // Without /proc only "mapped" can be told.
  if (maps == nullptr) return ::msync(reinterpret_cast<void*>(begin), end - begin, MS_ASYNC) == 0;
  // Lines by address: "BEGIN-END PERMISSIONS ..." (proc_pid_maps(5)).
  std::uintptr_t known = begin;
  std::array<char, 512> line{};
  while (known < end && std::fgets(line.data(), static_cast<int>(line.size()), maps.get()) != nullptr) {
    const char* const last = line.data() + std::strlen(line.data());
    std::uintptr_t from = 0;
    std::uintptr_t to = 0;
    const auto first = std::from_chars(line.data(), last, from, 16);
    if (first.ec != std::errc{} || first.ptr == last || *first.ptr != '-') continue;  // the rest of a long line
    const auto second = std::from_chars(first.ptr + 1, last, to, 16);
    if (second.ec != std::errc{} || last - second.ptr < 4 || to <= known) continue;
    const bool readable = second.ptr[1] == 'r';
    const bool writable = second.ptr[2] == 'w';
    if (from > known || !readable || (pin == Pin::kWrite && !writable)) return false;
    known = to;
  }
  return known >= end;
}

}  // namespace sevisor::emulator
