// What a suite of boot tests says: cases, each of them a guest and the steps it must go through. docs/boot-tests.md.
#pragma once

#include <chrono>
#include <map>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "sev/sha256.hpp"

namespace sevisor::suite {

using Milliseconds = std::chrono::milliseconds;

struct ExpectStep {
  std::string pattern;  // RE2's syntax; matches anywhere in a line of the console
  std::optional<Milliseconds> timeout;
};
struct SendStep {
  std::string text;
};
struct WaitStep {
  Milliseconds time{};
};
// The plug is pulled: the run is ended from outside, and how it ends is not looked at.
struct PowerOffStep {};

struct Step {
  std::variant<ExpectStep, SendStep, WaitStep, PowerOffStep> action;
  unsigned line = 0;  // of the suite's file
};

struct Case {
  std::string name;
  unsigned line = 0;                   // of the suite's file
  std::vector<std::string> arguments;  // of `sevisor run`, as keys of the case became them
  std::uint32_t policy = 0;
  std::vector<Step> steps;
  int exit_code = 0;  // of `sevisor run`, unless a step powers off
  std::optional<sev::Digest> launch_digest;
  Milliseconds timeout{};            // for the whole case
  std::vector<std::string> fail_on;  // patterns that no line of the console may match, unless a step expects it
};

struct Suite {
  std::string name;
  std::string path;
  std::vector<Case> cases;
  std::vector<std::string> notes;  // what its reader should know, a line each
};

// NAME=VALUE, by name.
using Variables = std::map<std::string, std::string>;

// Reads YAML or JSON. `set`: variables that go before the environment's and the suite's own. Throws Error (kBadUsage),
// with line and column, for what is not as docs/boot-tests.md has it: an unknown key, a value of the wrong kind, an
// unknown variable, two cases of one name; and for a variable of `set` that the suite has not.
[[nodiscard]] Suite read_suite(const std::string& path, const Variables& set);

// "step 2 of 3 (line 14: expect /login:/)"; `index` from 0.
[[nodiscard]] std::string step_text(const Case& test, std::size_t index);

}  // namespace sevisor::suite
