#include "vmm/suite/suite_report.hpp"

#include <algorithm>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "vmm/suite/progress.hpp"

namespace sevisor::suite {

namespace {

// Text and attribute values alike. What is not ASCII is left out too: it need not be UTF-8.
std::string xml(std::string_view text) {
  std::string result;
  for (const char c : text) {
    switch (c) {
      case '&':
        result += "&amp;";
        break;
      case '<':
        result += "&lt;";
        break;
      case '>':
        result += "&gt;";
        break;
      case '"':
        result += "&quot;";
        break;
      case '\n':
      case '\t':
        result += fmt::format("&#{};", static_cast<int>(c));
        break;
      default:
        if (c >= 0x20 && c != 0x7f) result += c;
    }
  }
  return result;
}

std::size_t count_of(const std::vector<CaseResult>& results, Verdict verdict) {
  return static_cast<std::size_t>(std::count_if(
      results.begin(), results.end(), [verdict](const CaseResult& result) { return result.verdict == verdict; }));
}

double seconds_of(const std::vector<CaseResult>& results) {
  double seconds = 0;
  for (const CaseResult& result : results) seconds += result.seconds;
  return seconds;
}

}  // namespace

std::string junit_report(const std::string& suite, const std::vector<CaseResult>& results) {
  const std::string counts =
      fmt::format(R"(name="{}" tests="{}" failures="{}" errors="{}" skipped="{}" time="{:.3f}")", xml(suite),
                  results.size(), count_of(results, Verdict::kFailed), count_of(results, Verdict::kError),
                  count_of(results, Verdict::kStopped), seconds_of(results));
  std::string text =
      fmt::format("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites {0}>\n<testsuite {0}>\n", counts);
  for (const CaseResult& result : results) {
    text += fmt::format(R"(<testcase name="{}" classname="{}.{}" time="{:.3f}">)", xml(result.name), xml(suite),
                        xml(result.host), result.seconds);
    const char* element = result.verdict == Verdict::kFailed    ? "failure"
                          : result.verdict == Verdict::kError   ? "error"
                          : result.verdict == Verdict::kStopped ? "skipped"
                                                                : nullptr;
    if (element != nullptr) {
      text += fmt::format(R"(<{0} message="{1}">{2}</{0}>)", element, xml(result.summary), xml(failure_text(result)));
    }
    text += "</testcase>\n";
  }
  return text + "</testsuite>\n</testsuites>\n";
}

std::string json_report(const std::string& suite, const std::vector<CaseResult>& results) {
  nlohmann::ordered_json report;
  report["suite"] = suite;
  report["passed"] = count_of(results, Verdict::kPassed);
  report["failed"] = count_of(results, Verdict::kFailed);
  report["errors"] = count_of(results, Verdict::kError);
  report["stopped"] = count_of(results, Verdict::kStopped);
  report["cases"] = nlohmann::ordered_json::array();
  for (const CaseResult& result : results) {
    nlohmann::ordered_json item;
    item["name"] = result.name;
    item["host"] = result.host;
    item["verdict"] = verdict_name(result.verdict);
    item["seconds"] = result.seconds;
    item["steps"] = result.steps;
    item["steps_done"] = result.steps_done;
    item["exit"] = {{"code", result.exit_code}, {"reason", result.reason}};
    if (!result.launch_digest.empty()) item["launch_digest"] = result.launch_digest;
    if (result.verdict != Verdict::kPassed) {
      item["summary"] = result.summary;
      item["details"] = result.details;
      item["last_lines"] = result.last_lines;
    }
    item["command"] = result.command;
    if (!result.log.empty()) item["log"] = result.log;
    report["cases"].push_back(std::move(item));
  }
  return report.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + '\n';
}

std::string summary_text(const std::vector<CaseResult>& results) {
  std::string text = fmt::format("{} passed, {} failed, {} could not run", count_of(results, Verdict::kPassed),
                                 count_of(results, Verdict::kFailed), count_of(results, Verdict::kError));
  if (const std::size_t stopped = count_of(results, Verdict::kStopped)) text += fmt::format(", {} stopped", stopped);
  return text;
}

}  // namespace sevisor::suite
