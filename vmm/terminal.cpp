#include "vmm/terminal.hpp"

#include <atomic>
#include <csignal>
#include <initializer_list>
#include <unistd.h>

namespace sevisor::vmm {

namespace {

// What a fault's signal handler needs, which has no other way to get at it. Written before the handler is installed.
struct Saved {
  int fd = -1;
  termios settings{};
};
Saved g_saved;
std::atomic<bool> g_raw = false;

constexpr std::initializer_list<int> kFaults = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGSYS, SIGTRAP};

void restore_and_die(int signal) {
  if (g_raw.exchange(false)) ::tcsetattr(g_saved.fd, TCSANOW, &g_saved.settings);
  (void)::signal(signal, SIG_DFL);
  (void)::raise(signal);
}

void set_fault_handlers(void (*handler)(int)) {
  for (const int signal : kFaults) {
    struct sigaction action {};
    action.sa_handler = handler;
    action.sa_flags = SA_RESETHAND;
    ::sigaction(signal, &action, nullptr);
  }
}

}  // namespace

bool in_background(int fd) noexcept { return ::isatty(fd) != 0 && ::tcgetpgrp(fd) != ::getpgrp(); }

RawTerminal::RawTerminal(int fd) : fd_(fd) {
  if (::isatty(fd) == 0 || in_background(fd) || ::tcgetattr(fd, &g_saved.settings) != 0) return;
  g_saved.fd = fd;
  termios raw = g_saved.settings;
  const tcflag_t output = raw.c_oflag;
  ::cfmakeraw(&raw);
  raw.c_oflag = output;
  g_raw = true;
  set_fault_handlers(restore_and_die);
  active_ = ::tcsetattr(fd, TCSANOW, &raw) == 0;
  g_raw = active_;
}

RawTerminal::~RawTerminal() {
  if (!active_) return;
  if (g_raw.exchange(false)) ::tcsetattr(fd_, TCSADRAIN, &g_saved.settings);
  set_fault_handlers(SIG_DFL);
}

}  // namespace sevisor::vmm
