#include "vmm/suite/script_run.hpp"

#include <catch2/catch.hpp>
#include <string>
#include <string_view>

using namespace sevisor::suite;
using Catch::Matchers::Contains;
using namespace std::chrono_literals;
using State = ScriptRun::State;

namespace {

const ScriptRun::Time kStart{};

std::span<const std::byte> bytes(std::string_view text) { return std::as_bytes(std::span(text)); }

Case make_case(std::vector<Step> steps) {
  Case test;
  test.name = std::string(1, 'a');
  test.steps = std::move(steps);
  test.timeout = 60s;
  test.fail_on = {"Kernel panic"};
  return test;
}

Step expect(const char* pattern, std::optional<Milliseconds> timeout = {}) { return {ExpectStep{pattern, timeout}, 7}; }

}  // namespace

TEST_CASE("steps follow the console") {
  const Case test = make_case({expect("login:"), {SendStep{"root\n"}, 8}, expect("# "), {SendStep{"off\n"}, 10}});
  ScriptRun run(test, kStart);
  CHECK(run.state() == State::kSteps);
  run.take(bytes("Welcome\nlog"), kStart + 1s);
  CHECK(run.step() == 0);
  CHECK(run.take_input().empty());
  run.take(bytes("in: "), kStart + 2s);
  CHECK(run.step() == 2);
  CHECK(run.take_input() == "root\n");
  CHECK(run.take_input().empty());
  run.take(bytes("\n# "), kStart + 3s);
  CHECK(run.take_input() == "off\n");
  CHECK(run.state() == State::kToTheEnd);
}

TEST_CASE("what a step used up is not there for the next one, what came before it is") {
  const Case test = make_case({expect("a"), expect("a"), {WaitStep{5s}, 1}, expect("b")});
  ScriptRun run(test, kStart);
  run.take(bytes("a"), kStart);
  CHECK(run.step() == 1);
  run.take(bytes("a b"), kStart);
  CHECK(run.step() == 2);
  CHECK(run.deadline() == kStart + 5s);
  run.advance(kStart + 4s);
  CHECK(run.step() == 2);
  run.advance(kStart + 5s);
  CHECK(run.state() == State::kToTheEnd);
}

TEST_CASE("power-off ends the steps") {
  const Case test = make_case({expect("up"), {PowerOffStep{}, 2}});
  ScriptRun run(test, kStart);
  run.take(bytes("up"), kStart);
  CHECK(run.state() == State::kPowerOff);
}

TEST_CASE("a step that waits in vain says which, for what and how long") {
  const Case test = make_case({expect("login:", 10s)});
  ScriptRun run(test, kStart);
  run.take(bytes("hello\n"), kStart + 1s);
  CHECK(run.deadline() == kStart + 10s);
  run.advance(kStart + 9s);
  CHECK(run.state() == State::kSteps);
  run.advance(kStart + 10s);
  CHECK(run.state() == State::kFailed);
  CHECK(run.failure() == "step 1 of 1 (line 7: expect /login:/) waited 10 s in vain");
  REQUIRE(run.details().size() == 1);
  CHECK(run.details()[0] == "the guest printed nothing in the last 9 s");
  CHECK(run.console().last(5) == std::vector<std::string>{"hello"});
}

TEST_CASE("the case's time limit holds for steps and for the end") {
  const Case steps = make_case({expect("login:")});
  ScriptRun run(steps, kStart);
  run.advance(kStart + 60s);
  CHECK_THAT(run.failure(), Contains("step 1 of 1") && Contains("after 60 s"));
  CHECK(run.details().at(0) == "the guest printed nothing at all");
  const Case none = make_case({});
  ScriptRun waiting(none, kStart);
  CHECK(waiting.state() == State::kToTheEnd);
  waiting.advance(kStart + 60s);
  CHECK_THAT(waiting.failure(), Contains("still running"));
}

TEST_CASE("a panic ends a case soon, with its line") {
  const Case test = make_case({expect("login:")});
  ScriptRun run(test, kStart);
  run.take(bytes("ok\n[1] Kernel panic"), kStart + 1s);
  run.take(bytes(" - not syncing: VFS\r\nCall Trace:\n"), kStart + 1s);
  CHECK(run.state() == State::kSteps);
  CHECK(run.deadline() == kStart + 3s);
  run.advance(kStart + 3s);
  CHECK(run.state() == State::kFailed);
  CHECK_THAT(run.failure(), Contains("/Kernel panic/") && Contains("during step 1 of 1"));
  CHECK(run.details().at(0) == "the line: [1] Kernel panic - not syncing: VFS");
}

TEST_CASE("a panic that ends the run is told as one") {
  const Case test = make_case({});
  ScriptRun run(test, kStart);
  run.take(bytes("Kernel panic: x\n"), kStart + 1s);
  run.end(kStart + 1s);
  CHECK(run.state() == State::kFailed);
}

TEST_CASE("a panic that a step expects is none") {
  const Case test = make_case({expect("Kernel panic - not syncing: (VFS|No)")});
  ScriptRun run(test, kStart);
  run.take(bytes("Kernel panic - not "), kStart + 1s);
  run.take(bytes("syncing: VFS\n"), kStart + 1s);
  CHECK(run.state() == State::kToTheEnd);
  run.take(bytes("---[ end Kernel panic - not syncing: VFS ]---\n"), kStart + 1s);
  run.advance(kStart + 8s);
  run.end(kStart + 9s);
  CHECK(run.state() == State::kToTheEnd);
}

TEST_CASE("costly patterns leave time limits their turn") {
  const Case test = make_case({expect("(.{0,500}a){2}\\By"), {PowerOffStep{}, 8}});
  ScriptRun run(test, kStart);
  std::string text(20'000, 'x');
  for (std::size_t i = 0; i < text.size(); i += 7) text[i] = 'a';
  const auto begin = std::chrono::steady_clock::now();
  run.take(bytes(text), kStart + 1s);
  CHECK(std::chrono::steady_clock::now() - begin < 5s);
  CHECK(run.busy());
  run.advance(kStart + 60s);
  CHECK(run.state() == State::kFailed);
  CHECK_THAT(run.failure(), Contains("still not done after 60 s"));
  CHECK_FALSE(run.busy());
}

TEST_CASE("what is left to be looked at is, and in its order") {
  const Case test = make_case({{WaitStep{1s}, 7}, expect("first"), expect("second"), {PowerOffStep{}, 8}});
  ScriptRun run(test, kStart);
  std::string text = "first\n" + std::string(3'000'000, 'x') + "\nsecond\n";
  run.take(bytes(text), kStart);
  int rounds = 0;
  while (run.state() != State::kPowerOff && ++rounds < 10'000) run.advance(kStart + 2s);
  CHECK(run.state() == State::kPowerOff);
}

TEST_CASE("a record keeps lines as people read them") {
  ConsoleRecord record;
  record.add(
      bytes("\x1b[1;31mred\x1b[0m text\r\n\n\x07"
            "bell\tend \x1b"
            "c\xff\n"));
  CHECK(record.last(9) == std::vector<std::string>{"red text", "bell\tend "});
  for (std::size_t i = 0; i < 3 * ConsoleRecord::kKeptLines; ++i) record.add(bytes("x\n"));
  CHECK(record.last(10'000).size() <= ConsoleRecord::kKeptLines);
  CHECK_FALSE(record.line(0));
  const std::string wide(10'000, 'y');
  record.add(bytes(wide));
  CHECK(record.line(record.line_number())->size() == ConsoleRecord::kMaxLine);
}
