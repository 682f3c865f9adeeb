#include "emulator/kvm/signal_gate.hpp"

#include <cerrno>
#include <initializer_list>
#include <poll.h>
#include <pthread.h>

namespace sevisor::emulator {

SignalGate::SignalGate() {
  sigset_t held;
  sigfillset(&held);
  for (const int signal : {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP, SIGABRT, SIGPROF}) sigdelset(&held, signal);
  pthread_sigmask(SIG_BLOCK, &held, &outside_);
}

SignalGate::~SignalGate() { pthread_sigmask(SIG_SETMASK, &outside_, nullptr); }

bool SignalGate::pending() const {
  sigset_t waiting;
  sigpending(&waiting);
  // sigisemptyset and the like are GNU extensions that C++ without extensions hides.
  for (int signal = 1; signal < NSIG; ++signal) {
    if (sigismember(&waiting, signal) == 1 && sigismember(&outside_, signal) == 0) return true;
  }
  return false;
}

bool SignalGate::wait(int fd, const timespec& timeout) const {
  pollfd waiter{.fd = fd, .events = POLLIN, .revents = 0};
  return ::ppoll(&waiter, 1, &timeout, &outside_) < 0 && errno == EINTR;
}

}  // namespace sevisor::emulator
