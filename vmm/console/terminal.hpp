// The user's terminal in raw mode, put back on every way out, SIGKILL included.
#pragma once

#include <sys/types.h>
#include <termios.h>

#include "base/unique_fd.hpp"

namespace sevisor::vmm {

// A process that does nothing but wait for this one's death, and then puts the terminal back if nobody else did: a
// program that is killed cannot. To be made before there is guest memory, which it would otherwise share.
class TerminalGuard {
 public:
  // Nothing is started unless `fd` is a terminal and this process in its foreground.
  explicit TerminalGuard(int fd);
  // Ends it.
  ~TerminalGuard();
  TerminalGuard(const TerminalGuard&) = delete;
  TerminalGuard& operator=(const TerminalGuard&) = delete;

  // The terminal is about to go from `saved` to `raw`.
  void watch(const termios& saved, const termios& raw) const noexcept;

 private:
  pid_t pid_ = -1;
  UniqueFd pipe_;  // its end is this process's death
};

class RawTerminal {
 public:
  // If `fd` is a terminal and this process is in its foreground: every key goes to the reader at once, none raises a
  // signal. Output processing stays as it is, so that the program's own lines look right. The terminal comes back with
  // the destructor; should the program die of a fault, in the fault's signal handler; should it be killed, by `guard`.
  // One object at a time.
  RawTerminal(int fd, const TerminalGuard& guard);
  ~RawTerminal();
  RawTerminal(const RawTerminal&) = delete;
  RawTerminal& operator=(const RawTerminal&) = delete;

  [[nodiscard]] bool active() const noexcept { return active_; }

 private:
  int fd_;
  bool active_ = false;
};

// Whether reading `fd` would stop this process: it is the terminal of another process group.
[[nodiscard]] bool in_background(int fd) noexcept;

}  // namespace sevisor::vmm
