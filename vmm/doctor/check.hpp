// What `sevisor doctor` finds: a tree of checks.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace sevisor::doctor {

enum class Status : std::uint8_t {
  kPass,
  kFail,  // guests cannot run because of it
  kSkip,  // could not be looked at, or another check failed before it
};

struct Check {
  std::string name;
  Status status = Status::kPass;
  std::string text = {};    // what was found
  std::string repair = {};  // of a failure: the command or the BIOS switch that helps
  std::vector<Check> children = {};
};

// A group of checks: it fails if one of them does, and is skipped if all of them are.
[[nodiscard]] Check group(std::string name, std::vector<Check> children);

// The first check without children that failed; nullptr if none did.
[[nodiscard]] const Check* first_failure(const std::vector<Check>& checks);

// "[ PASS ] - Processor: ...", children indented, repairs below what they repair.
[[nodiscard]] std::string text_of(const std::vector<Check>& checks, bool colour);

// A list; each item has "name", "status" ("pass", "fail", "skip"), "text", "repair", "checks" where there are any.
[[nodiscard]] std::string json_of(const std::string& host, bool can_run, const std::string& verdict,
                                  const std::vector<Check>& checks);

}  // namespace sevisor::doctor
