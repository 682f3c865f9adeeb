#include "vmm/doctor/check.hpp"

#include <algorithm>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

namespace sevisor::doctor {

namespace {

struct StatusText {
  const char* label;
  const char* colour;
  const char* name;
};

const StatusText& text_of_status(Status status) {
  static constexpr StatusText kTexts[] = {
      {"PASS", "\x1b[32m", "pass"}, {"FAIL", "\x1b[31m", "fail"}, {"SKIP", "\x1b[33m", "skip"}};
  return kTexts[static_cast<std::size_t>(status)];
}

void print(const std::vector<Check>& checks, bool colour, std::size_t depth, std::string& to) {
  for (const Check& check : checks) {
    const StatusText& status = text_of_status(check.status);
    to += fmt::format("[ {}{}{} ] {:{}}- {}{}{}\n", colour ? status.colour : "", status.label, colour ? "\x1b[0m" : "",
                      "", 2 * depth, check.name, check.text.empty() ? "" : ": ", check.text);
    if (!check.repair.empty()) to += fmt::format("{:{}}to repair: {}\n", "", 2 * depth + 11, check.repair);
    print(check.children, colour, depth + 1, to);
  }
}

nlohmann::ordered_json json_of_checks(const std::vector<Check>& checks) {
  auto list = nlohmann::ordered_json::array();
  for (const Check& check : checks) {
    nlohmann::ordered_json item;
    item["name"] = check.name;
    item["status"] = text_of_status(check.status).name;
    if (!check.text.empty()) item["text"] = check.text;
    if (!check.repair.empty()) item["repair"] = check.repair;
    if (!check.children.empty()) item["checks"] = json_of_checks(check.children);
    list.push_back(std::move(item));
  }
  return list;
}

}  // namespace

Check group(std::string name, std::vector<Check> children) {
  const auto any = [&](Status status) {
    return std::ranges::any_of(children, [status](const Check& child) { return child.status == status; });
  };
  const Status status = any(Status::kFail) ? Status::kFail : any(Status::kPass) ? Status::kPass : Status::kSkip;
  return {.name = std::move(name), .status = status, .children = std::move(children)};
}

const Check* first_failure(const std::vector<Check>& checks) {
  for (const Check& check : checks) {
    if (const Check* below = first_failure(check.children)) return below;
    if (check.status == Status::kFail && check.children.empty()) return &check;
  }
  return nullptr;
}

std::string text_of(const std::vector<Check>& checks, bool colour) {
  std::string text;
  print(checks, colour, 0, text);
  return text;
}

std::string json_of(const std::string& host, bool can_run, const std::string& verdict,
                    const std::vector<Check>& checks) {
  nlohmann::ordered_json report;
  report["host"] = host;
  report["can_run"] = can_run;
  report["verdict"] = verdict;
  report["checks"] = json_of_checks(checks);
  return report.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + '\n';
}

}  // namespace sevisor::doctor
