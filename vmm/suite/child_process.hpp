// A program that runs beside this one, with pipes for its three standard descriptors.
#pragma once

#include <span>
#include <string>
#include <sys/types.h>
#include <vector>

#include "base/unique_fd.hpp"

namespace sevisor::suite {

inline constexpr int kSignalExitBase = 128;  // as shells report a death by signal

class ChildProcess {
 public:
  // `arguments` begins with the program's path. The child is in a process group of its own, so that a key on the
  // terminal does not reach it, and dies with the thread that makes it. Throws Error (kBadUsage).
  explicit ChildProcess(const std::vector<std::string>& arguments);
  // Kills it, if it still runs.
  ~ChildProcess();
  ChildProcess(const ChildProcess&) = delete;
  ChildProcess& operator=(const ChildProcess&) = delete;

  [[nodiscard]] UniqueFd& input() noexcept { return input_; }  // of the child; non-blocking, as are the others
  [[nodiscard]] UniqueFd& output() noexcept { return output_; }
  [[nodiscard]] UniqueFd& errors() noexcept { return errors_; }
  // Readable once the child has ended.
  [[nodiscard]] int ended_fd() const noexcept { return pid_fd_.get(); }

  void signal(int number) const noexcept;
  // Waits for its end. The exit code, or kSignalExitBase + the number of the signal that ended it.
  [[nodiscard]] int wait() noexcept;

 private:
  pid_t pid_ = -1;  // -1 once it was waited for
  UniqueFd input_, output_, errors_;
  UniqueFd pid_fd_;
};

}  // namespace sevisor::suite
