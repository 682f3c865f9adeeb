// How a run ended.
#pragma once

#include <optional>
#include <string>
#include <utility>

#include "base/error.hpp"

namespace sevisor::vmm {

struct Outcome {
  int code = 0;        // exit code of the program
  std::string reason;  // one line, for people

  std::optional<unsigned> vcpu;  // whose doing it was: what it did last is of interest

  Outcome(ExitCode exit_code, std::string why, std::optional<unsigned> of_vcpu = std::nullopt)
      : Outcome(static_cast<int>(exit_code), std::move(why), of_vcpu) {}
  Outcome(int exit_code, std::string why, std::optional<unsigned> of_vcpu = std::nullopt)
      : code(exit_code), reason(std::move(why)), vcpu(of_vcpu) {}
};

}  // namespace sevisor::vmm
