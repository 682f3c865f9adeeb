// An eventfd of user space that the host holds on to, as the kernel does for KVM_IRQFD and KVM_IOEVENTFD: it stays when
// user space closes its own descriptor.
#pragma once

#include <cstdint>

#include "base/unique_fd.hpp"

namespace sevisor::emulator {

class EventDescriptor {
 public:
  // `fd`: of this process. 0, or -EBADF when nothing is open there, -EINVAL when it is no eventfd, -EMFILE.
  [[nodiscard]] int open(int fd);

  [[nodiscard]] int fd() const noexcept { return fd_.get(); }
  // The same eventfd, by whatever descriptors it was named.
  friend bool operator==(const EventDescriptor& a, const EventDescriptor& b) noexcept { return a.id_ == b.id_; }
  // Adds 1. A counter that is full stays so.
  void signal() const;
  [[nodiscard]] bool signalled() const;
  // Whether it was signalled; takes that away. Never waits.
  [[nodiscard]] bool take() const;

 private:
  UniqueFd fd_;
  std::uint64_t id_ = 0;  // the kernel's, of the eventfd
};

}  // namespace sevisor::emulator
