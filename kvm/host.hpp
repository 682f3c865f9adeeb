// The seam: what answers KVM and SEV ioctls. The kernel host passes them on; the emulated host answers them in process.
// Everything above the typed handles (kvm/handles.hpp) is the same for both. See docs/architecture.md.
#pragma once

#include <cstddef>
#include <string_view>

namespace sevisor::kvm {

// Each call fails as its system call does: -1 with errno set, as the kernel gives it.
class Host {
 public:
  Host() = default;
  Host(const Host&) = delete;
  Host& operator=(const Host&) = delete;
  virtual ~Host() = default;

  // "kernel" or "emulated": goes into reports.
  [[nodiscard]] virtual std::string_view name() const noexcept = 0;

  // `path` is /dev/kvm or /dev/sev; `flags` as for open(2). Returns a descriptor that only this host understands.
  virtual int open(const char* path, int flags) = 0;
  // `argument` is the ioctl's third parameter: a pointer, or an integer in its place.
  virtual int ioctl(int fd, unsigned long request, void* argument) = 0;
  // Maps the kvm_run area of a vCPU descriptor: MAP_SHARED, readable and writable. nullptr on failure, errno set.
  virtual void* mmap(int fd, std::size_t size) = 0;
  virtual int munmap(void* address, std::size_t size) = 0;
  virtual int close(int fd) = 0;
};

}  // namespace sevisor::kvm
