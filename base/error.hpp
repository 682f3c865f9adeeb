// The one exception that set-up code throws: what was tried, what came back, what the user can do.
#pragma once

#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>

namespace sevisor {

// Exit codes of `sevisor run`; docs/run.md lists them.
enum class ExitCode : int {
  kPoweredOff = 0,
  kResetAsked = 32,
  kCrash = 33,
  kGuestPanic = 34,
  kBadUsage = 35,
  kTimedOut = 36,
  kSevTermination = 37,
  kHostCannot = 38,
};

class Error : public std::runtime_error {
 public:
  // `tried`: the operation, as in "open /dev/kvm". `came_back`: the answer, as in "Permission denied (EACCES)".
  // `advice`: what the user can do, an imperative sentence; may be empty.
  Error(ExitCode exit_code, std::string tried, std::string came_back, std::string advice = {});

  [[nodiscard]] ExitCode exit_code() const noexcept { return exit_code_; }
  [[nodiscard]] const std::string& tried() const noexcept { return tried_; }
  [[nodiscard]] const std::string& came_back() const noexcept { return came_back_; }
  [[nodiscard]] const std::string& advice() const noexcept { return advice_; }

 private:
  ExitCode exit_code_;
  std::string tried_;
  std::string came_back_;
  std::string advice_;
};

// "Permission denied (EACCES)".
[[nodiscard]] std::string errno_text(int error_number);

}  // namespace sevisor
