// The end of a Catch2 test that compares with the host's processor.
#pragma once

#include <catch2/catch.hpp>

#include "tests/cpu_diff/encodings.hpp"
#include "tests/cpu_diff/judgement.hpp"

namespace sevisor::cpu_diff {

inline void conclude(const Findings& findings) {
  const Judgement judgement = judge(host_processor(), findings);
  if (!judgement.report.empty()) WARN(judgement.report);
  CHECK(judgement.passed);
}

// For Finding::repeat.
inline std::string check_cpu_only(const Encoding& e) {
  return std::string("./dev check-cpu --only ") + ZydisMnemonicGetString(e.info.mnemonic);
}

}  // namespace sevisor::cpu_diff
