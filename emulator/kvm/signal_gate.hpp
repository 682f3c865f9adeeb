// Signals during KVM_RUN. The kernel leaves KVM_RUN with EINTR when a signal is pending; here they are blocked while
// the vCPU runs, and looked for. When KVM_RUN returns they are let in again, and their handlers run.
#pragma once

#include <csignal>
#include <ctime>

namespace sevisor::emulator {

class SignalGate {
 public:
  SignalGate();
  ~SignalGate();
  SignalGate(const SignalGate&) = delete;
  SignalGate& operator=(const SignalGate&) = delete;

  // A signal waits that the thread did not block before. SIGPROF and the signals of faults are never held up.
  [[nodiscard]] bool pending() const;
  // Waits until `fd` is readable, a signal was handled or the time is over. true: a signal.
  bool wait(int fd, const timespec& timeout) const;

 private:
  sigset_t outside_{};
};

}  // namespace sevisor::emulator
