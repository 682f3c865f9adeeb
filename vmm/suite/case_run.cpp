#include "vmm/suite/case_run.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <fmt/format.h>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <poll.h>
#include <unistd.h>

#include "base/error.hpp"
#include "base/output_file.hpp"
#include "vmm/suite/child_process.hpp"
#include "vmm/suite/owner_check.hpp"
#include "vmm/suite/script_run.hpp"

namespace sevisor::suite {

namespace {

using Clock = std::chrono::steady_clock;

constexpr auto kLook = std::chrono::milliseconds(200);  // how often `stop` is looked at
constexpr auto kMercy = std::chrono::seconds(5);        // from SIGTERM to SIGKILL
constexpr std::size_t kLastLines = 12;                  // of the console, in a report
constexpr std::size_t kMaxErrorText = 64 << 10;         // bytes of what the run says about itself

class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string path = (std::filesystem::temp_directory_path() / "sevisor-case.XXXXXX").string();
    if (::mkdtemp(path.data()) == nullptr) {
      throw Error(ExitCode::kBadUsage, fmt::format("make the folder '{}'", path), errno_text(errno), "Set TMPDIR.");
    }
    path_ = path;
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  [[nodiscard]] const std::string& path() const noexcept { return path_; }

 private:
  std::string path_;
};

std::string quoted(const std::string& word) {
  const bool plain = !word.empty() && std::all_of(word.begin(), word.end(), [](unsigned char c) {
    return std::isalnum(c) != 0 || std::strchr("-_=./,:@%+", c) != nullptr;
  });
  if (plain) return word;
  std::string result = "'";
  for (const char c : word) c == '\'' ? result += "'\\''" : result += c;
  return result + "'";
}

// A case's log, if it has one.
class CaseLog {
 public:
  explicit CaseLog(const std::string& path) {
    if (path.empty()) return;
    fd_ = open_output(path, O_TRUNC, 0666);
    if (!fd_) error_number_ = errno;
  }
  void write(std::string_view text) {
    if (fd_ && error_number_ == 0) error_number_ = write_whole(fd_.get(), std::as_bytes(std::span(text)));
  }
  // errno of what was lost first; 0: it is whole, or none is kept.
  [[nodiscard]] int error_number() const noexcept { return error_number_; }

 private:
  UniqueFd fd_;
  int error_number_ = 0;
};

// The run of `sevisor` that a case is, from its start to its end.
class Running {
 public:
  Running(const Case& test, const CaseSetting& setting, const std::vector<std::string>& arguments)
      : setting_(setting), log_(setting.log), child_(arguments), script_(test, Clock::now()) {}

  // Until the child has ended and all it said is read. Returns its exit code.
  int to_the_end();

  [[nodiscard]] const ScriptRun& script() const noexcept { return script_; }
  [[nodiscard]] bool stopped() const noexcept { return stopped_; }
  [[nodiscard]] bool powered_off() const noexcept { return powered_off_; }
  [[nodiscard]] const std::string& said() const noexcept { return said_; }
  [[nodiscard]] CaseLog& log() noexcept { return log_; }

 private:
  void read(UniqueFd& fd, const std::function<void(std::span<const std::byte>)>& take);
  void write_input();
  void end_child(Clock::time_point now);

  const CaseSetting& setting_;
  CaseLog log_;
  ChildProcess child_;
  ScriptRun script_;
  std::string input_;
  std::string said_;
  bool stopped_ = false;
  bool powered_off_ = false;
  std::optional<Clock::time_point> asked_;  // to end
  std::size_t told_step_ = SIZE_MAX;
};

void Running::read(UniqueFd& fd, const std::function<void(std::span<const std::byte>)>& take) {
  std::array<std::byte, 16384> chunk;
  const ssize_t got = ::read(fd.get(), chunk.data(), chunk.size());
  if (got > 0) {
    take(std::span(chunk).first(static_cast<std::size_t>(got)));
  } else if (got == 0 || (errno != EAGAIN && errno != EINTR)) {
    fd.reset();
  }
}

void Running::write_input() {
  input_ += script_.take_input();
  if (input_.empty() || !child_.input()) return;
  const ssize_t written = ::write(child_.input().get(), input_.data(), input_.size());
  if (written > 0) input_.erase(0, static_cast<std::size_t>(written));
  if (written < 0 && errno != EAGAIN && errno != EINTR) child_.input().reset();
}

void Running::end_child(Clock::time_point now) {
  if (!asked_) {
    asked_ = now;
    child_.signal(SIGTERM);
  } else if (now - *asked_ >= kMercy) {
    child_.signal(SIGKILL);
  }
}

int Running::to_the_end() {
  bool ended = false;
  while (!ended || child_.output() || child_.errors() || (script_.busy() && !stopped_)) {
    const auto now = Clock::now();
    if (!ended || script_.busy()) script_.advance(now);
    if (!ended) {
      if (setting_.stop) stopped_ = true;
      if (script_.state() == ScriptRun::State::kPowerOff) powered_off_ = true;
      if (stopped_ || powered_off_ || script_.state() == ScriptRun::State::kFailed) end_child(now);
      write_input();
      if (told_step_ != script_.step() && setting_.progress) {
        told_step_ = script_.step();
        setting_.progress(told_step_);
      }
    }
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(script_.deadline() - now);
    const auto wait = std::clamp<std::chrono::milliseconds>(left, std::chrono::milliseconds(1), kLook);
    // Nothing more is read while patterns have not looked at what there is.
    const bool busy = !stopped_ && script_.busy();
    std::array<pollfd, 4> ready = {pollfd{busy ? -1 : child_.output().get(), POLLIN, 0},
                                   pollfd{child_.errors().get(), POLLIN, 0},
                                   pollfd{ended ? -1 : child_.ended_fd(), POLLIN, 0},
                                   pollfd{input_.empty() ? -1 : child_.input().get(), POLLOUT, 0}};
    const auto patience = busy ? std::chrono::milliseconds(0) : asked_ ? kLook : wait;
    ::poll(ready.data(), ready.size(), static_cast<int>(patience.count()));
    if (ready[0].revents != 0) {
      read(child_.output(), [this](std::span<const std::byte> bytes) {
        log_.write({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
        script_.take(bytes, Clock::now());
      });
    }
    if (ready[1].revents != 0) {
      read(child_.errors(), [this](std::span<const std::byte> bytes) {
        if (said_.size() < kMaxErrorText) said_.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
      });
    }
    // Its output is read to the end of it, unless a process that it left behind holds the pipe.
    if (ready[2].revents != 0) ended = true;
    if (busy) continue;
    if (ended && ready[0].revents == 0 && ready[1].revents == 0) break;
  }
  script_.end(Clock::now());
  return child_.wait();
}

std::string whole_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

// The last line that says something, without "sevisor: ".
std::string last_said(const std::string& said) {
  std::string line = said.substr(0, said.find_last_not_of("\r\n") + 1);
  line = line.substr(line.find_last_of('\n') + 1);
  for (const std::string_view prefix : {"sevisor: ", "error: "}) {
    if (line.starts_with(prefix)) line.erase(0, prefix.size());
  }
  return line;
}

// Of a run that left no report: the signal that ended it, or what it said last.
std::string end_without_report(int exit_code, const std::string& said) {
  const char* signal = exit_code > kSignalExitBase ? ::sigabbrev_np(exit_code - kSignalExitBase) : nullptr;
  return signal != nullptr ? fmt::format("ended by SIG{}", signal) : last_said(said);
}

bool could_not_run(int exit_code) {
  return exit_code == static_cast<int>(ExitCode::kBadUsage) || exit_code == static_cast<int>(ExitCode::kHostCannot);
}

void judge(const Case& test, const Running& running, CaseResult& result) {
  const ScriptRun& script = running.script();
  const std::string ended = fmt::format("the run ended with exit code {}{}{}", result.exit_code,
                                        result.reason.empty() ? "" : ": ", result.reason);
  if (running.stopped()) {
    result.verdict = Verdict::kStopped;
    result.summary = "stopped";
  } else if (script.state() == ScriptRun::State::kFailed) {
    result.verdict = Verdict::kFailed;
    result.summary = script.failure();
    result.details = script.details();
  } else if (running.powered_off()) {
    return;
  } else if (could_not_run(result.exit_code) && result.exit_code != test.exit_code) {
    result.verdict = Verdict::kError;
    result.summary = fmt::format("sevisor could not run the guest (exit code {}): {}", result.exit_code, result.reason);
  } else if (script.state() == ScriptRun::State::kSteps) {
    result.verdict = Verdict::kFailed;
    result.summary = fmt::format("{}, during {}", ended, step_text(test, script.step()));
  } else if (result.exit_code != test.exit_code) {
    result.verdict = Verdict::kFailed;
    result.summary = fmt::format("{}, expected {}", ended, test.exit_code);
  }
}

void run_child(const Case& test, const CaseSetting& setting, CaseResult& result) {
  const TemporaryFolder folder;
  const std::string report_path = folder.path() + "/report.json";
  std::vector<std::string> arguments = {setting.program, "run", "--host=" + setting.host};
  // What the test needs stands before the case's arguments: the last of these may lack its value.
  std::vector<std::string> by_hand = arguments;
  by_hand.insert(by_hand.end(), test.arguments.begin(), test.arguments.end());
  for (const std::string& word : by_hand) result.command += (result.command.empty() ? "" : " ") + quoted(word);
  arguments.push_back("--json=" + report_path);
  std::optional<OwnerCheck> owner;
  if (test.launch_digest) {
    if (setting.pdh == nullptr) {
      throw Error(ExitCode::kHostCannot, "expect a launch digest", "the platform's certificates could not be had");
    }
    owner.emplace(*setting.pdh, test.policy, folder.path());
    arguments.insert(arguments.end(), owner->arguments().begin(), owner->arguments().end());
  }
  arguments.insert(arguments.end(), test.arguments.begin(), test.arguments.end());

  Running running(test, setting, arguments);
  result.exit_code = running.to_the_end();
  result.steps_done = running.script().step();
  const std::string report = whole_file(report_path);
  const auto json = nlohmann::json::parse(report, nullptr, false);
  if (json.is_object()) result.launch_digest = json.value("launch_digest", "");
  result.reason = json.is_object() && json.contains("exit") ? json["exit"].value("reason", "")
                                                            : end_without_report(result.exit_code, running.said());
  judge(test, running, result);
  // A guest that never was has no measurement; one that failed may have failed because it is another.
  if (owner && !could_not_run(result.exit_code) &&
      (result.verdict == Verdict::kPassed || result.verdict == Verdict::kFailed)) {
    if (const auto why = owner->why_not(report, *test.launch_digest)) {
      if (result.verdict == Verdict::kFailed) result.details.insert(result.details.begin(), "and: " + result.summary);
      result.verdict = Verdict::kFailed;
      result.summary = *why;
      result.details.emplace_back(
          "firmware, number of vCPUs, CPU type, init API and kernel hashes make the digest; 'sevisor measure' computes "
          "it");
    }
  }
  if (result.verdict != Verdict::kPassed) result.last_lines = running.script().console().last(kLastLines);
  running.log().write(fmt::format("\n--- sevisor said ---\n{}--- {}: {}{}{} ---\n", running.said(), test.name,
                                  verdict_name(result.verdict), result.summary.empty() ? "" : ": ", result.summary));
  if (const int error_number = running.log().error_number(); error_number != 0) {
    const std::string lost = fmt::format("its log could not be written: {}", errno_text(error_number));
    if (result.verdict == Verdict::kPassed) {
      result.verdict = Verdict::kError;
      result.summary = lost;
    } else {
      result.details.push_back(lost);
    }
  }
}

}  // namespace

const char* verdict_name(Verdict verdict) {
  switch (verdict) {
    case Verdict::kPassed:
      return "passed";
    case Verdict::kFailed:
      return "failed";
    case Verdict::kError:
      return "error";
    case Verdict::kStopped:
      return "stopped";
  }
  return "";
}

CaseResult run_case(const Case& test, const CaseSetting& setting) {
  CaseResult result;
  result.name = test.name;
  result.host = setting.host;
  result.steps = test.steps.size();
  result.log = setting.log;
  const auto start = Clock::now();
  try {
    run_child(test, setting, result);
  } catch (const std::exception& error) {
    result.verdict = Verdict::kError;
    result.summary = error.what();
  }
  result.seconds = std::chrono::duration<double>(Clock::now() - start).count();
  return result;
}

}  // namespace sevisor::suite
