// How a run ended.
#pragma once

#include <string>
#include <utility>

#include "base/error.hpp"

namespace sevisor::vmm {

struct Outcome {
  int code = 0;        // exit code of the program
  std::string reason;  // one line, for people

  Outcome(ExitCode exit_code, std::string why) : code(static_cast<int>(exit_code)), reason(std::move(why)) {}
  Outcome(int exit_code, std::string why) : code(exit_code), reason(std::move(why)) {}
};

}  // namespace sevisor::vmm
