#include "vmm/suite/script_run.hpp"

#include <algorithm>
#include <fmt/format.h>
#include <utility>

namespace sevisor::suite {

namespace {

using Clock = std::chrono::steady_clock;

// After a forbidden line: so that what the guest says next is seen, and a step may expect that very line.
constexpr auto kAfterAlarm = std::chrono::seconds(2);
// Output that no step looks at is kept up to here, bytes; of more the oldest half is dropped.
constexpr std::size_t kMaxUnread = 4 << 20;

// Bytes that patterns look at in one go, and real time after which the caller has its turn.
constexpr std::size_t kLookAtOnce = 16;
constexpr auto kLookFor = std::chrono::milliseconds(100);

double seconds_of(std::chrono::steady_clock::duration time) { return std::chrono::duration<double>(time).count(); }

}  // namespace

ScriptRun::ScriptRun(const Case& test, Time start)
    : test_(test), start_(start), step_start_(start), last_output_(start) {
  for (const std::string& pattern : test.fail_on) alarms_.push_back({pattern, vmm::ExpectMatcher(pattern)});
  start_step(start);
  go_on(start);
}

std::string ScriptRun::where() const {
  if (step_ < test_.steps.size()) return "during " + step_text(test_, step_);
  return test_.steps.empty() ? "and no step expects it" : "after the last step";
}

void ScriptRun::fail(std::string failure, Time now) {
  if (state_ == State::kFailed) return;
  state_ = State::kFailed;
  failure_ = std::move(failure);
  if (silent_) {
    details_.emplace_back("the guest printed nothing at all");
  } else if (now - last_output_ >= std::chrono::seconds(3)) {
    details_.push_back(fmt::format("the guest printed nothing in the last {:.0f} s", seconds_of(now - last_output_)));
  }
}

void ScriptRun::start_step(Time now) {
  step_start_ = now;
  expect_.reset();
  if (step_ == test_.steps.size()) {
    if (state_ == State::kSteps) state_ = State::kToTheEnd;
    return;
  }
  if (const auto* expect = std::get_if<ExpectStep>(&test_.steps[step_].action)) expect_.emplace(expect->pattern);
}

// Looks for what the step expects in what is unread, as long as it may, and drops what it has looked at.
bool ScriptRun::expected_comes() {
  std::optional<std::size_t> used;
  std::size_t at = 0;
  while (!used && at < unread_.size() && (at == 0 || Clock::now() < look_until_)) {
    const std::size_t size = std::min(kLookAtOnce, unread_.size() - at);
    used = expect_->feed(std::span(unread_).subspan(at, size));
    at += used.value_or(size);
  }
  unread_.erase(unread_.begin(), unread_.begin() + static_cast<std::ptrdiff_t>(at));
  return used.has_value();
}

// Goes through steps until one has to wait.
void ScriptRun::go_on(Time now) {
  while (state_ == State::kSteps) {
    const auto& action = test_.steps[step_].action;
    if (expect_) {
      if (!expected_comes()) return;
      raised_.reset();  // what came up to here was waited for
    } else if (const auto* send = std::get_if<SendStep>(&action)) {
      input_ += send->text;
    } else if (const auto* wait = std::get_if<WaitStep>(&action)) {
      if (now - step_start_ < wait->time) return;
    } else {
      state_ = State::kPowerOff;
      return;
    }
    ++step_;
    start_step(now);
  }
}

// An alarm is raised once: what a guest says after a line that a step expected (the end of a panic) is no surprise.
void ScriptRun::watch(std::span<const std::byte> output, Time now) {
  std::size_t first_match = output.size() + 1;
  std::string pattern;
  std::erase_if(alarms_, [&](Alarm& alarm) {
    const auto used = alarm.matcher.feed(output);
    if (used && *used < first_match) {
      first_match = *used;
      pattern = alarm.pattern;
    }
    return used.has_value();
  });
  if (pattern.empty() || raised_) {
    console_.add(output);
    return;
  }
  console_.add(output.first(first_match));
  raised_ = Raised{console_.line_number() - (output[first_match - 1] == std::byte{'\n'} ? 1 : 0), pattern, now};
  console_.add(output.subspan(first_match));
}

void ScriptRun::look(Time now) {
  if (!waits()) {
    console_.add(pending_);
    pending_.clear();
    return;
  }
  look_until_ = Clock::now() + kLookFor;
  std::size_t at = 0;
  do {
    const auto piece = std::span(pending_).subspan(at, std::min(kLookAtOnce, pending_.size() - at));
    at += piece.size();
    if (!piece.empty()) watch(piece, now);
    if (state_ == State::kSteps) unread_.insert(unread_.end(), piece.begin(), piece.end());
    if (unread_.size() > kMaxUnread) unread_.erase(unread_.begin(), unread_.begin() + kMaxUnread / 2);
    go_on(now);
  } while (at < pending_.size() && Clock::now() < look_until_);
  pending_.erase(pending_.begin(), pending_.begin() + static_cast<std::ptrdiff_t>(at));
}

void ScriptRun::take(std::span<const std::byte> output, Time now) {
  if (!output.empty()) {
    silent_ = false;
    last_output_ = now;
    pending_.insert(pending_.end(), output.begin(), output.end());
  }
  advance(now);
}

void ScriptRun::advance(Time now) {
  look(now);
  if (!waits()) return;
  if (raised_ && now - raised_->at >= kAfterAlarm) {
    end(now);
    return;
  }
  if (raised_) return;
  if (expect_) {
    const auto& expect = std::get<ExpectStep>(test_.steps[step_].action);
    if (expect.timeout && now - step_start_ >= *expect.timeout) {
      fail(fmt::format("{} waited {:g} s in vain", step_text(test_, step_), seconds_of(*expect.timeout)), now);
      return;
    }
  }
  if (now - start_ >= test_.timeout) {
    const std::string after = fmt::format("after {:g} s", seconds_of(test_.timeout));
    if (state_ == State::kToTheEnd) {
      fail(fmt::format("the guest was still running {}; {}", after,
                       test_.steps.empty() ? "it should have ended by itself"
                                           : "all steps were done, and it should have ended by itself"),
           now);
    } else {
      fail(fmt::format("{} was still not done {}, the case's time limit", step_text(test_, step_), after), now);
    }
  }
}

void ScriptRun::end(Time now) {
  if (!raised_ || !waits()) return;
  fail(fmt::format("the guest printed a line that matches /{}/, {}", raised_->pattern, where()), now);
  if (const auto line = console_.line(raised_->line)) details_.insert(details_.begin(), "the line: " + *line);
}

ScriptRun::Time ScriptRun::deadline() const {
  Time when = start_ + test_.timeout;
  if (raised_) when = std::min(when, raised_->at + kAfterAlarm);
  if (step_ < test_.steps.size()) {
    const auto& action = test_.steps[step_].action;
    if (const auto* wait = std::get_if<WaitStep>(&action)) when = std::min(when, step_start_ + wait->time);
    const auto* expect = std::get_if<ExpectStep>(&action);
    if (expect != nullptr && expect->timeout) when = std::min(when, step_start_ + *expect->timeout);
  }
  return when;
}

std::string ScriptRun::take_input() { return std::exchange(input_, {}); }

}  // namespace sevisor::suite
