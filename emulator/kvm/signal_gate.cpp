#include "emulator/kvm/signal_gate.hpp"

#include <cerrno>
#include <initializer_list>
#include <poll.h>
#include <pthread.h>
#include <sys/signalfd.h>

namespace sevisor::emulator {

SignalGate::SignalGate(const std::optional<sigset_t>& mask) {
  sigset_t held;
  sigfillset(&held);
  for (const int signal : {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP, SIGABRT, SIGPROF}) sigdelset(&held, signal);
  pthread_sigmask(SIG_BLOCK, &held, &outside_);
  during_ = mask.value_or(outside_);
  if (!mask) return;
  sigset_t others;
  sigfillset(&others);
  for (int signal = 1; signal < NSIG; ++signal) {
    if (sigismember(&during_, signal) == 1) sigdelset(&others, signal);
  }
  awaited_ = UniqueFd(::signalfd(-1, &others, SFD_CLOEXEC | SFD_NONBLOCK));
}

SignalGate::~SignalGate() { pthread_sigmask(SIG_SETMASK, &outside_, nullptr); }

bool SignalGate::pending() const {
  sigset_t waiting;
  sigpending(&waiting);
  // sigisemptyset and the like are GNU extensions that C++ without extensions hides.
  for (int signal = 1; signal < NSIG; ++signal) {
    if (sigismember(&waiting, signal) == 1 && sigismember(&during_, signal) == 0) return true;
  }
  return false;
}

bool SignalGate::wait(int fd, const timespec& timeout) const {
  if (awaited_) {
    // A signal that the thread blocks stays pending: who gave the mask fetches it himself.
    pollfd waiters[] = {{.fd = fd, .events = POLLIN, .revents = 0},
                        {.fd = awaited_.get(), .events = POLLIN, .revents = 0}};
    (void)::ppoll(waiters, 2, &timeout, nullptr);
    return pending();
  }
  pollfd waiter{.fd = fd, .events = POLLIN, .revents = 0};
  return ::ppoll(&waiter, 1, &timeout, &outside_) < 0 && errno == EINTR;
}

}  // namespace sevisor::emulator
