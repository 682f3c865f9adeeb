// Signals during KVM_RUN. The kernel leaves KVM_RUN with EINTR when a signal is pending; here they are blocked while
// the vCPU runs, and looked for. When KVM_RUN returns they are let in again, and their handlers run.
#pragma once

#include <csignal>
#include <ctime>
#include <optional>

#include "base/unique_fd.hpp"

namespace sevisor::emulator {

class SignalGate {
 public:
  // `mask`: the signals that do not end KVM_RUN (KVM_SET_SIGNAL_MASK), instead of those that the thread blocks.
  explicit SignalGate(const std::optional<sigset_t>& mask = std::nullopt);
  ~SignalGate();
  SignalGate(const SignalGate&) = delete;
  SignalGate& operator=(const SignalGate&) = delete;

  // A signal waits that is to end KVM_RUN. SIGPROF and the signals of faults are never held up.
  [[nodiscard]] bool pending() const;
  // Waits until `fd` is readable, a signal that is to end KVM_RUN came or the time is over. true: a signal.
  bool wait(int fd, const timespec& timeout) const;

 private:
  sigset_t outside_{};  // the thread's mask
  sigset_t during_{};   // the signals that do not matter
  UniqueFd awaited_;    // readable when one of the others is pending; only with a mask of its own
};

}  // namespace sevisor::emulator
