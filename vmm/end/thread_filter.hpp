// Takes from the threads that serve a guest the system calls that they do not need, so that a guest which gets hold of
// one can do little with it. Linux Documentation/userspace-api/seccomp_filter.rst.
#pragma once

#include <linux/filter.h>
#include <vector>

namespace sevisor::vmm {

class ThreadFilter {
 public:
  // A filter that allows everything.
  ThreadFilter() = default;
  // For threads that run vCPUs and serve devices and the console: memory, locks, signals, time, reading and writing
  // what is open; of ioctl(2) what runs a vCPU, raises an interrupt and sets a terminal. Nothing can be opened,
  // connected or executed, and no process made. Whatever else is called ends the process with SIGSYS. `emulated`: the
  // host runs in these threads too, and compiles code. Throws Error (kBadUsage).
  static ThreadFilter for_guest_threads(bool emulated);

  // Confines the calling thread, for good. Throws Error (kBadUsage) when the kernel has no filters.
  void confine_this_thread() const;

 private:
  std::vector<sock_filter> program_;
};

}  // namespace sevisor::vmm
