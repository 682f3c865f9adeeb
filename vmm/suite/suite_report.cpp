#include "vmm/suite/suite_report.hpp"

#include <algorithm>
#include <array>
#include <cstdint>
#include <fmt/format.h>
#include <nlohmann/json.hpp>
#include <string_view>

#include "vmm/suite/progress.hpp"

namespace sevisor::suite {

namespace {

// How many bytes from `at` on are one character of UTF-8 that XML 1.0 allows (section 2.2); 0 if they are none.
std::size_t character_size(std::string_view text, std::size_t at) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[at + i]); };
  const unsigned first = byte(0);
  if (first < 0x80) return 1;
  const std::size_t size = first >= 0xc2 && first < 0xe0   ? 2
                           : first >= 0xe0 && first < 0xf0 ? 3
                           : first >= 0xf0 && first < 0xf5 ? 4
                                                           : 0;
  if (size == 0 || text.size() - at < size) return 0;
  std::uint32_t code = first & (0x7fU >> size);
  for (std::size_t i = 1; i < size; ++i) {
    if ((byte(i) & 0xc0U) != 0x80) return 0;
    code = code << 6 | (byte(i) & 0x3fU);
  }
  constexpr std::array<std::uint32_t, 5> kLeast = {0, 0, 0x80, 0x800,
                                                   0x10000};  // by size: not in more bytes than needed
  const bool surrogate = code >= 0xd800 && code < 0xe000;
  const bool forbidden = surrogate || code == 0xfffe || code == 0xffff || code > 0x10ffff || code < kLeast[size];
  return forbidden ? 0 : size;
}

// Text and attribute values alike. Control characters, which XML forbids, are left out; what is no UTF-8 becomes
// U+FFFD.
std::string xml(std::string_view text) {
  std::string result;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t size = character_size(text, at);
    const char c = text[at];
    if (size == 0) {
      result += "\xef\xbf\xbd";
    } else if (size > 1) {
      result += text.substr(at, size);
    } else if (c == '&') {
      result += "&amp;";
    } else if (c == '<') {
      result += "&lt;";
    } else if (c == '>') {
      result += "&gt;";
    } else if (c == '"') {
      result += "&quot;";
    } else if (c == '\n' || c == '\t') {
      result += fmt::format("&#{};", static_cast<int>(c));
    } else if (c >= 0x20 && c != 0x7f) {
      result += c;
    }
    at += std::max<std::size_t>(size, 1);
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
      fmt::format(R"(name="{}" tests="{}" failures="{}" errors="{}")", xml(suite), results.size(),
                  count_of(results, Verdict::kFailed), count_of(results, Verdict::kError));
  // Jenkins' xUnit plugin takes `skipped` of a testsuite, and refuses a file with it in `testsuites` (junit-10.xsd).
  const std::string skipped = fmt::format(R"( skipped="{}")", count_of(results, Verdict::kStopped));
  const std::string time = fmt::format(R"( time="{:.3f}")", seconds_of(results));
  std::string text =
      fmt::format("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites {0}{2}>\n<testsuite {0}{1}{2}>\n", counts,
                  skipped, time);
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
