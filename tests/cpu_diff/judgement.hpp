// What a run of comparisons has found, and what that means on this processor: on one that was tried before any
// difference is a defect; on one that nobody has tried differences are news, to be looked at and put into
// differences.cpp. An engine that fails is a defect everywhere.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>

#include "tests/cpu_diff/processor.hpp"

namespace sevisor::cpu_diff {

// Processors on which the whole comparison has passed.
struct Tried {
  Vendor vendor;
  unsigned family;
  unsigned first_model, last_model;
  std::string_view name;
};
[[nodiscard]] std::span<const Tried> tried_processors();
[[nodiscard]] bool is_tried(const Processor& processor);

// Of one instruction form.
struct Finding {
  std::uint64_t differences = 0;
  std::uint64_t failures = 0;  // the engine threw, crashed, hung or could not run it
  std::string first;           // the first case
  std::string repeat;          // a command that shows more of them
};
using Findings = std::map<std::string, Finding>;

// Counts one. `first` and `repeat` are kept of the first.
void add_difference(Findings& findings, const std::string& form, const std::string& first, const std::string& repeat);
void add_failure(Findings& findings, const std::string& form, const std::string& first, const std::string& repeat);

struct Judgement {
  bool passed = true;
  std::string report;  // empty if nothing was found
};
[[nodiscard]] Judgement judge(const Processor& processor, const Findings& findings);

}  // namespace sevisor::cpu_diff
