// Which instruction forms are compared with the host's processor, how, and why the others are not.
#pragma once

#include <string>
#include <string_view>

#include "tests/cpu_diff/engine.hpp"
#include "tests/cpu_diff/form_table.hpp"
#include "tests/cpu_diff/native.hpp"

namespace sevisor::check_cpu {

enum class Verdict : std::uint8_t {
  kCompared,
  kNotOffered,  // #UD in the engine, as its CPUID says
  kNotCompared,
};
struct Choice {
  Verdict verdict = Verdict::kCompared;
  std::string_view reason;  // of kNotCompared
};
[[nodiscard]] Choice choose(cpu_diff::Engine& engine, cpu_diff::Mode mode, const cpu_diff::Encoding& sample);

struct Outcome {
  bool ran = false;        // false: this encoding could not be aimed, or its result is undefined
  bool completed = false;  // without an exception
  bool failed = false;     // the engine could not run it
  std::string difference;  // empty: none
};
// Runs `encoding` from a random state on both sides. `encoding` changes: its operands are aimed.
Outcome compare(cpu_diff::Random& random, cpu_diff::Mode mode, cpu_diff::Encoding& encoding, cpu_diff::Native& native,
                cpu_diff::Engine& engine);

}  // namespace sevisor::check_cpu
