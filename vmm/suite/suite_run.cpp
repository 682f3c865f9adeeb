#include "vmm/suite/suite_run.hpp"

#include <algorithm>
#include <cctype>
#include <fmt/format.h>
#include <thread>

namespace sevisor::suite {

namespace {

constexpr std::size_t kMaxLogName = 100;

// `first` and `second`: one case on two hosts.
void compare(const CaseResult& first, CaseResult& second) {
  if (first.verdict != Verdict::kPassed || second.verdict != Verdict::kPassed) return;
  std::vector<std::string> differences;
  if (first.exit_code != second.exit_code) {
    differences.push_back(fmt::format("the exit code is {} there and {} here", first.exit_code, second.exit_code));
  }
  if (first.launch_digest != second.launch_digest) {
    differences.push_back(
        fmt::format("the launch digest is {} there and {} here", first.launch_digest, second.launch_digest));
  }
  if (differences.empty()) return;
  second.verdict = Verdict::kFailed;
  second.summary = fmt::format("it is not as on the {} host: {}", first.host, fmt::join(differences, "; "));
}

}  // namespace

std::string log_name(const std::string& test, const std::string& host, std::size_t index) {
  std::string name = fmt::format("{:03}-{}-{}", index + 1, test, host);
  for (char& c : name) {
    if (std::isalnum(static_cast<unsigned char>(c)) == 0 && c != '-' && c != '_' && c != '.') c = '_';
  }
  return name.substr(0, kMaxLogName) + ".log";
}

std::vector<CaseResult> run_suite(const Suite& suite, const SuiteSetting& setting, Progress& progress,
                                  const std::atomic<bool>& stop) {
  const std::size_t hosts = setting.hosts.size();
  const std::size_t total = suite.cases.size() * hosts;
  std::vector<CaseResult> results(total);
  std::atomic<std::size_t> next = 0;

  const auto run_one = [&](std::size_t index) {
    const Case& test = suite.cases[index / hosts];
    const std::string& host = setting.hosts[index % hosts];
    const auto pdh = setting.pdhs.find(host);
    const std::string log = setting.logs.empty() ? "" : setting.logs + "/" + log_name(test.name, host, index / hosts);
    progress.started(index, fmt::format("{} ({})", test.name, host));
    const auto doing = [&progress, &test, index](std::size_t step) {
      progress.doing(index, step < test.steps.size() ? step_text(test, step) : "until it ends");
    };
    const CaseResult result =
        run_case(test, {setting.program, host, pdh == setting.pdhs.end() ? nullptr : &pdh->second, log, stop, doing});
    results[index] = result;
    if (index % hosts == 0 || hosts == 1) progress.finished(index, result);
    return index % hosts != 0;
  };
  // One case's hosts run one after the other in one thread: they are compared.
  const auto work = [&] {
    for (;;) {
      const std::size_t test = next++;
      if (test >= suite.cases.size()) return;
      for (std::size_t host = 0; host < hosts; ++host) {
        const std::size_t index = test * hosts + host;
        if (stop) {
          CaseResult& result = results[index];
          result.name = suite.cases[test].name;
          result.host = setting.hosts[host];
          result.verdict = Verdict::kStopped;
          result.summary = "not started";
          continue;
        }
        if (run_one(index)) {
          compare(results[test * hosts], results[index]);
          progress.finished(index, results[index]);
        }
      }
    }
  };
  std::vector<std::thread> threads;
  const std::size_t jobs = std::min<std::size_t>(std::max(1U, setting.jobs), suite.cases.size());
  for (std::size_t i = 0; i < jobs; ++i) threads.emplace_back(work);
  for (std::thread& thread : threads) thread.join();
  return results;
}

}  // namespace sevisor::suite
