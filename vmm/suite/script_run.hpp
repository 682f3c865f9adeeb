// A case's steps, as its guest goes through them: a plain machine of time and console output, without processes.
#pragma once

#include <chrono>
#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "vmm/console/expect_matcher.hpp"
#include "vmm/suite/console_record.hpp"
#include "vmm/suite/suite.hpp"

namespace sevisor::suite {

class ScriptRun {
 public:
  using Time = std::chrono::steady_clock::time_point;

  enum class State {
    kSteps,     // in the midst of them
    kToTheEnd,  // all done: the guest shall end by itself
    kPowerOff,  // all done: the guest is to be ended
    kFailed,    // see failure()
  };

  // `test` must outlive this object.
  ScriptRun(const Case& test, Time start);

  // What the guest printed; then what is to be done at `now`. Looking at output ends after kLookFor of real time:
  // whatever the patterns, time limits hold. What is left is looked at by the next advance().
  void take(std::span<const std::byte> output, Time now);
  void advance(Time now);
  // Whether output is left to be looked at.
  [[nodiscard]] bool busy() const noexcept { return waits() && (!pending_.empty() || (expect_ && !unread_.empty())); }
  // The guest has ended: what was still to come will not.
  void end(Time now);

  [[nodiscard]] State state() const noexcept { return state_; }
  [[nodiscard]] std::size_t step() const noexcept { return step_; }  // the one it is at
  // When advance() has something to do at the latest.
  [[nodiscard]] Time deadline() const;
  // What is to be typed; forgotten once asked for.
  [[nodiscard]] std::string take_input();

  // One line, and further ones that help.
  [[nodiscard]] const std::string& failure() const noexcept { return failure_; }
  [[nodiscard]] const std::vector<std::string>& details() const noexcept { return details_; }
  [[nodiscard]] const ConsoleRecord& console() const noexcept { return console_; }

 private:
  struct Alarm {
    std::string pattern;
    vmm::ExpectMatcher matcher;
  };
  struct Raised {
    std::size_t line;
    std::string pattern;
    Time at;
  };

  [[nodiscard]] bool waits() const noexcept { return state_ == State::kSteps || state_ == State::kToTheEnd; }
  void look(Time now);
  void watch(std::span<const std::byte> output, Time now);
  void go_on(Time now);
  [[nodiscard]] bool expected_comes();
  void start_step(Time now);
  void fail(std::string failure, Time now);
  [[nodiscard]] std::string where() const;

  const Case& test_;
  Time start_;
  Time step_start_;
  Time last_output_;
  State state_ = State::kSteps;
  std::size_t step_ = 0;
  std::optional<vmm::ExpectMatcher> expect_;  // of an expect step
  std::vector<std::byte> pending_;            // what the guest printed and nothing has looked at
  std::vector<std::byte> unread_;             // what no expect step has looked at
  std::chrono::steady_clock::time_point look_until_;
  std::string input_;
  std::vector<Alarm> alarms_;
  std::optional<Raised> raised_;
  bool silent_ = true;
  ConsoleRecord console_;
  std::string failure_;
  std::vector<std::string> details_;
};

}  // namespace sevisor::suite
