#include "vmm/cli/test_command.hpp"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fmt/format.h>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <unistd.h>
#include <vector>

#include "base/error.hpp"
#include "kvm/kernel_host.hpp"
#include "vmm/cli/certificate_files.hpp"
#include "vmm/cli/distinct_files.hpp"
#include "vmm/cli/log.hpp"
#include "vmm/cli/option_values.hpp"
#include "vmm/launch/host_ability.hpp"
#include "vmm/run/report_file.hpp"
#include "vmm/suite/suite_report.hpp"
#include "vmm/suite/suite_run.hpp"
#include "vmm/text/pattern.hpp"

namespace sevisor::cli {

namespace {

constexpr int kSomethingFailed = 1;
constexpr int kSignalExitBase = 128;
constexpr unsigned kMaxJobs = 1024;
constexpr long kTickNs = 200'000'000;

constexpr const char* kFooter =
    "Exit codes: 0 all cases passed, 1 some did not, 35 the suite or an option is wrong, 38 the host asked for cannot "
    "run\n  SEV-ES guests, 128+N ended by signal N.\n"
    "Nothing is retried. docs/boot-tests.md describes the file, with workflows for CI.\n"
    "\n"
    "Example:\n"
    "  sevisor test debian-boot.yaml --set KERNEL=/boot/vmlinuz --junit results.xml --logs logs\n";

struct TestOptions {
  std::string suite;
  std::string host = "auto";
  std::string jobs;
  std::string filter;
  std::vector<std::string> set;
  std::string junit;
  std::string json;
  std::string logs;
  bool list = false;
};

[[noreturn]] void refuse(std::string tried, std::string came_back, std::string advice) {
  throw Error(ExitCode::kBadUsage, std::move(tried), std::move(came_back), std::move(advice));
}

suite::Variables read_variables(const std::vector<std::string>& set) {
  suite::Variables variables;
  for (const std::string& item : set) {
    const std::size_t equals = item.find('=');
    if (equals == 0 || equals == std::string::npos) {
      refuse(fmt::format("read --set '{}'", item), "it is not NAME=VALUE", "Give it as --set KERNEL=/boot/vmlinuz.");
    }
    if (!variables.emplace(item.substr(0, equals), item.substr(equals + 1)).second) {
      refuse(fmt::format("read --set '{}'", item), "the variable has a value already", "Give each variable once.");
    }
  }
  return variables;
}

void keep_matching(suite::Suite& suite, const std::string& filter) {
  if (filter.empty()) return;
  const vmm::Pattern pattern("--filter", filter);
  std::erase_if(suite.cases, [&](const suite::Case& test) { return !pattern.found_in(test.name); });
  if (suite.cases.empty()) {
    refuse(fmt::format("choose cases with --filter '{}'", filter), "no case has such a name",
           "'--list' shows the names.");
  }
}

// Such a guest needs KVM, but no SEV-ES.
bool is_plain(const suite::Case& test) {
  return std::ranges::find(test.arguments, "--confidential=none") != test.arguments.end();
}

std::vector<std::string> choose_hosts(const std::string& choice, const suite::Suite& suite) {
  if (choice == "emulated") return {choice};
  if (choice != "auto" && choice != "kernel" && choice != "both") {
    refuse(fmt::format("read --host '{}'", choice), "no such host", "Choose one of auto, kernel, emulated, both.");
  }
  const auto kernel = kvm::make_kernel_host();
  const bool plain = std::ranges::all_of(suite.cases, is_plain);
  const std::string_view needed = plain ? "KVM" : "SEV-ES";
  const std::optional<std::string> reason = plain ? vmm::why_no_kvm(*kernel) : vmm::why_no_sev_es(*kernel);
  if (!reason)
    return choice == "both" ? std::vector<std::string>{"kernel", "emulated"} : std::vector<std::string>{"kernel"};
  if (choice == "auto") {
    fmt::print(stderr, "sevisor: warning: testing on the emulated host, which protects nothing: no {} here ({})\n",
               needed, *reason);
    return {"emulated"};
  }
  throw Error(ExitCode::kHostCannot,
              fmt::format("run {} guests on this machine's kernel host", plain ? "plain" : "SEV-ES"), *reason,
              "'sevisor doctor' says what to do; --host emulated needs no hardware.");
}

// A platform's PDH, which a session is made for.
sev::Certificate pdh_of(const std::string& host) {
  return find_certificates({.host = host, .files = {}, .roots = {}}).platform.pdh;
}

void make_folder(const std::string& path) {
  std::error_code error;
  std::filesystem::create_directories(path, error);
  if (error) refuse(fmt::format("make the folder '{}'", path), error.message(), "Give another one with --logs.");
}

// Signals that end the suite, blocked in all threads made meanwhile.
class EndSignals {
 public:
  EndSignals() {
    ::sigemptyset(&set_);
    for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGQUIT}) ::sigaddset(&set_, signal);
    ::pthread_sigmask(SIG_BLOCK, &set_, nullptr);
    (void)::signal(SIGPIPE, SIG_IGN);
  }
  // The signal that came within a moment, 0 if none.
  [[nodiscard]] int wait() const noexcept {
    const timespec tick{0, kTickNs};
    return std::max(0, ::sigtimedwait(&set_, nullptr, &tick));
  }

 private:
  sigset_t set_{};
};

bool can_draw(std::FILE* out) {
  const char* term = std::getenv("TERM");
  return ::isatty(::fileno(out)) != 0 && term != nullptr && std::string_view(term) != "dumb";
}

int test(const CLI::App& command, const TestOptions& options) {
  require_distinct_files(command, {"suite"}, {"--junit", "--json"});
  const EndSignals signals;
  suite::Suite suite = suite::read_suite(options.suite, read_variables(options.set));
  for (const std::string& note : suite.notes) fmt::print(stderr, "sevisor: warning: {}\n", note);
  keep_matching(suite, options.filter);
  if (options.list) {
    for (const suite::Case& test : suite.cases) fmt::print("{}\n", test.name);
    return 0;
  }
  suite::SuiteSetting setting;
  setting.jobs = options.jobs.empty() ? std::max(1U, std::thread::hardware_concurrency())
                                      : static_cast<unsigned>(parse_integer("--jobs", options.jobs, 1, kMaxJobs));
  std::optional<vmm::ReportFile> junit;
  std::optional<vmm::ReportFile> json;
  if (!options.junit.empty()) junit.emplace(options.junit, "--junit");
  if (!options.json.empty()) json.emplace(options.json, "--json");
  if (!options.logs.empty()) make_folder(options.logs);
  setting.logs = options.logs;
  setting.hosts = choose_hosts(options.host, suite);
  setting.program = std::filesystem::read_symlink("/proc/self/exe").string();
  if (std::ranges::any_of(suite.cases, [](const suite::Case& test) { return test.launch_digest.has_value(); })) {
    for (const std::string& host : setting.hosts) setting.pdhs.emplace(host, pdh_of(host));
  }

  std::atomic<bool> stop = false;
  std::atomic<bool> done = false;
  int signal = 0;
  std::vector<suite::CaseResult> results;
  {
    suite::Progress progress(stdout, can_draw(stdout), suite.cases.size() * setting.hosts.size(),
                             may_colour(STDOUT_FILENO));
    std::thread runner([&] {
      results = suite::run_suite(suite, setting, progress, stop);
      done = true;
    });
    while (!done) {
      if (const int came = signals.wait(); came != 0) {
        signal = came;
        stop = true;
      }
      progress.tick();
    }
    runner.join();
  }
  if (junit) junit->write(suite::junit_report(suite.name, results));
  if (json) json->write(suite::json_report(suite.name, results));
  fmt::print("{}: {}\n", suite.name, suite::summary_text(results));
  if (signal != 0) return kSignalExitBase + signal;
  const bool good = std::ranges::all_of(
      results, [](const suite::CaseResult& result) { return result.verdict == suite::Verdict::kPassed; });
  return good ? 0 : kSomethingFailed;
}

}  // namespace

Command add_test_command(CLI::App& app) {
  const auto options = std::make_shared<TestOptions>();
  CLI::App* command = app.add_subcommand("test", "Run a suite of boot tests");
  command->footer(kFooter);
  command->add_option("suite", options->suite, "the suite, YAML or JSON")->type_name("FILE")->required();
  command
      ->add_option("--host", options->host,
                   "auto: the kernel's host if it has SEV-ES, else the emulated one; both: one after the other, and "
                   "compare")
      ->type_name("auto|kernel|emulated|both")
      ->capture_default_str();
  command->add_option("--jobs", options->jobs, "cases that run at the same time (default: as many as CPUs)")
      ->type_name("N");
  command->add_option("--filter", options->filter, "only cases whose name matches")->type_name("REGEX");
  command->add_option("--set", options->set, "a variable of the suite; may be given several times")
      ->type_name("NAME=VALUE")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  command->add_option("--junit", options->junit, "write the results as JUnit XML")->type_name("FILE");
  command->add_option("--json", options->json, "write the results as JSON")->type_name("FILE");
  command->add_option("--logs", options->logs, "keep a log of each case in this folder")->type_name("FOLDER");
  command->add_flag("--list", options->list, "only print the names of the cases");
  return {command, [command, options] { return test(*command, *options); }};
}

}  // namespace sevisor::cli
