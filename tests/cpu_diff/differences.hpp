// Where processors of another maker or generation do something else than the engine, which is an EPYC of family 25
// model 1. A host is held to the engine in everything but the rows that apply to it; of those a detail is left out, and
// nothing else of the instructions that have it.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "tests/cpu_diff/encodings.hpp"
#include "tests/cpu_diff/processor.hpp"

namespace sevisor::cpu_diff {

// What was run, and the state from which.
struct Ran {
  Mode mode;
  const Encoding& e;
  const Machine& before;
};

// A row has one of the two functions.
struct Difference {
  std::string_view what;   // is not compared
  std::string_view why;    // what the processors do
  std::string_view where;  // `applies` in words
  bool (*applies)(const Processor& host);
  // Makes `engine` agree with `native` in this detail if `ran` has it.
  void (*forgive)(const Ran& ran, const Machine& native, Machine& engine) = nullptr;
  // Encodings that are not compared at all. Of those that do not decode only the bytes are given.
  bool (*leaves_out)(const Encoding& encoding) = nullptr;
};

// All of them, in the order in which they are forgiven.
[[nodiscard]] std::span<const Difference> differences();

// Takes out of the comparison what `host` does otherwise than the engine.
void forgive_host(const Processor& host, const Ran& ran, const Machine& native, Machine& engine);
// A row that applies to `host` leaves this encoding out.
[[nodiscard]] bool left_out(const Processor& host, const Encoding& encoding);

// For a program's output: the host, and what is not compared on it with the reasons.
[[nodiscard]] std::string describe_differences(const Processor& host);

}  // namespace sevisor::cpu_diff
