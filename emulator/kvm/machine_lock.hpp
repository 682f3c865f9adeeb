// The lock over the state of a host's VMs. The thread that runs vCPUs holds it nearly always; others get it between two
// slices.
#pragma once

#include <atomic>
#include <mutex>
#include <thread>

namespace sevisor::emulator {

class MachineLock {
 public:
  void lock() {
    waiting_.fetch_add(1);
    mutex_.lock();
    waiting_.fetch_sub(1);
  }
  void unlock() { mutex_.unlock(); }

  // The holder lets all in who wait now. A plain unlock and lock would mostly give the lock back to itself.
  void let_others_in() {
    if (waiting_.load() == 0) return;
    mutex_.unlock();
    while (waiting_.load() != 0) std::this_thread::yield();
    mutex_.lock();
  }

 private:
  std::mutex mutex_;
  std::atomic<int> waiting_{0};
};

}  // namespace sevisor::emulator
