// The user's terminal in raw mode, put back on every way out.
#pragma once

#include <optional>
#include <termios.h>

namespace sevisor::vmm {

class RawTerminal {
 public:
  // If `fd` is a terminal and this process is in its foreground: every key goes to the reader at once, none raises a
  // signal. Output processing stays as it is, so that the program's own lines look right. The terminal comes back with
  // the destructor and, should the program die of a fault, in the fault's signal handler. One object at a time.
  explicit RawTerminal(int fd);
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
