#include "vmm/console/terminal.hpp"

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <fcntl.h>
#include <initializer_list>
#include <sys/prctl.h>
#include <sys/wait.h>
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

// What a guard is told.
struct Settings {
  termios saved;
  termios raw;
};

// termios has padding, so that its bytes cannot be compared.
bool same(const termios& a, const termios& b) {
  return a.c_iflag == b.c_iflag && a.c_oflag == b.c_oflag && a.c_cflag == b.c_cflag && a.c_lflag == b.c_lflag;
}

// The guard's whole life. Only what may be called after a fork of a program with threads.
[[noreturn]] void guard_terminal(int terminal, int pipe) {
  // In a session of its own it may change the terminal from anywhere, and no key or hang-up reaches it.
  ::setsid();
  ::prctl(PR_SET_NAME, "sevisor-tty");
  sigset_t all;
  ::sigfillset(&all);
  ::sigprocmask(SIG_SETMASK, &all, nullptr);
  // It must hold no pipe open whose end somebody waits for.
  if (::dup2(terminal, STDIN_FILENO) < 0 || ::dup2(pipe, STDOUT_FILENO) < 0) ::_exit(1);
  ::close_range(STDERR_FILENO, ~0U, 0);
  Settings settings{};
  bool watching = false;
  for (;;) {
    const ssize_t got = ::read(STDOUT_FILENO, &settings, sizeof settings);
    if (got < 0 && errno == EINTR) continue;
    if (got != sizeof settings) break;  // the end
    watching = true;
  }
  termios now{};
  if (watching && ::tcgetattr(STDIN_FILENO, &now) == 0 && same(now, settings.raw)) {
    ::tcsetattr(STDIN_FILENO, TCSANOW, &settings.saved);
  }
  ::_exit(0);
}

}  // namespace

bool in_background(int fd) noexcept { return ::isatty(fd) != 0 && ::tcgetpgrp(fd) != ::getpgrp(); }

TerminalGuard::TerminalGuard(int fd) {
  if (::isatty(fd) == 0 || in_background(fd)) return;
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return;  // then there is none; the terminal comes back on all other ways
  const UniqueFd from(ends[0]);
  pipe_ = UniqueFd(ends[1]);
  pid_ = ::fork();
  if (pid_ == 0) {
    ::close(ends[1]);
    guard_terminal(fd, ends[0]);
  }
}

TerminalGuard::~TerminalGuard() {
  if (pid_ < 0) return;
  pipe_.reset();
  while (::waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
  }
}

void TerminalGuard::watch(const termios& saved, const termios& raw) const noexcept {
  const Settings settings{saved, raw};
  // Less than PIPE_BUF: it goes as a whole.
  if (pid_ > 0) [[maybe_unused]]
    const ssize_t written = ::write(pipe_.get(), &settings, sizeof settings);
}

RawTerminal::RawTerminal(int fd, const TerminalGuard& guard) : fd_(fd) {
  if (::isatty(fd) == 0 || in_background(fd) || ::tcgetattr(fd, &g_saved.settings) != 0) return;
  g_saved.fd = fd;
  termios raw = g_saved.settings;
  const tcflag_t output = raw.c_oflag;
  ::cfmakeraw(&raw);
  raw.c_oflag = output;
  g_raw = true;
  set_fault_handlers(restore_and_die);
  guard.watch(g_saved.settings, raw);
  active_ = ::tcsetattr(fd, TCSANOW, &raw) == 0;
  g_raw = active_;
}

RawTerminal::~RawTerminal() {
  if (!active_) return;
  if (g_raw.exchange(false)) ::tcsetattr(fd_, TCSADRAIN, &g_saved.settings);
  set_fault_handlers(SIG_DFL);
}

}  // namespace sevisor::vmm
