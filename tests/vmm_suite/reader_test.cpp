#include <catch2/catch.hpp>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <unistd.h>

#include "base/error.hpp"
#include "vmm/suite/suite.hpp"

using namespace sevisor;
using namespace sevisor::suite;
using Catch::Matchers::Contains;

namespace {

// A suite in a file of its own.
class File {
 public:
  explicit File(const std::string& text) {
    std::string path = (std::filesystem::temp_directory_path() / "suite-test.XXXXXX").string();
    const int fd = ::mkstemp(path.data());
    REQUIRE(fd >= 0);
    ::close(fd);
    std::ofstream(path) << text;
    path_ = path;
  }
  ~File() { std::filesystem::remove(path_); }
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  std::string path_;
};

Suite read(const std::string& text, const Variables& set = {}) { return read_suite(File(text).path(), set); }

bool has(const Case& test, const std::string& argument) {
  return std::find(test.arguments.begin(), test.arguments.end(), argument) != test.arguments.end();
}

}  // namespace

TEST_CASE("a suite's keys become a run's options, defaults included") {
  const File file(R"(
name: demo
defaults: {kernel: vmlinuz, memory: 1G, timeout: 60}
cases:
  - name: one
    kernel: /boot/other
    policy: 0x7
    cpus: 2
    arguments: [--log-level, debug]
    exit: 32
  - name: two
    launch-digest: ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad
    fail-on: [oops, "BUG: "]
)");
  const Suite suite = read_suite(file.path(), {});
  CHECK(suite.name == "demo");
  REQUIRE(suite.cases.size() == 2);
  const Case& one = suite.cases[0];
  CHECK(one.name == "one");
  CHECK(one.line == 5);
  CHECK(has(one, "--kernel=/boot/other"));
  CHECK(has(one, "--memory=1G"));
  CHECK(has(one, "--policy=0x7"));
  CHECK(one.policy == 7);
  CHECK(has(one, "--cpus=2"));
  CHECK(has(one, "--log-level"));
  CHECK(one.exit_code == 32);
  CHECK(one.timeout == std::chrono::seconds(60));
  CHECK(one.fail_on == std::vector<std::string>{"Kernel panic - not syncing"});
  const Case& two = suite.cases[1];
  // A path is relative to the suite's folder.
  CHECK(has(two, "--kernel=" + (std::filesystem::path(file.path()).parent_path() / "vmlinuz").string()));
  CHECK(has(two, "--cpus=1"));
  REQUIRE(two.launch_digest);
  CHECK((*two.launch_digest)[0] == std::byte{0xba});
  CHECK(two.fail_on.size() == 2);
}

TEST_CASE("steps are read in their order") {
  const Suite suite = read(R"(
cases:
  - name: one
    steps:
      - {expect: "login:", timeout: 2.5}
      - send: "root\n"
      - wait: 0.25
      - power-off
)");
  const auto& steps = suite.cases.at(0).steps;
  REQUIRE(steps.size() == 4);
  CHECK(std::get<ExpectStep>(steps[0].action).pattern == "login:");
  CHECK(std::get<ExpectStep>(steps[0].action).timeout == std::chrono::milliseconds(2500));
  CHECK(steps[0].line == 5);
  CHECK(std::get<SendStep>(steps[1].action).text == "root\n");
  CHECK(std::get<WaitStep>(steps[2].action).time == std::chrono::milliseconds(250));
  CHECK(std::holds_alternative<PowerOffStep>(steps[3].action));
  CHECK(step_text(suite.cases[0], 0) == "step 1 of 4 (line 5: expect /login:/)");
}

TEST_CASE("JSON is read as well, tabs and all") {
  const Suite suite = read(
      "{\n\t\"name\": \"j\",\n\t\"cases\": [\n\t\t{\"name\": \"a\", \"cpus\": 3,\n\t\t \"steps\": "
      "[{\"expect\": \"x\\ty\"}, \"power-off\"]}\n\t]\n}\n");
  REQUIRE(suite.cases.size() == 1);
  CHECK(has(suite.cases[0], "--cpus=3"));
  CHECK(std::get<ExpectStep>(suite.cases[0].steps[0].action).pattern == "x\ty");
}

TEST_CASE("a list of cpus makes a case of each") {
  const Suite suite = read("cases:\n  - {name: boot, cpus: [1, 64]}\n");
  REQUIRE(suite.cases.size() == 2);
  CHECK(suite.cases[0].name == "boot [1 vCPU]");
  CHECK(suite.cases[1].name == "boot [64 vCPUs]");
  CHECK(has(suite.cases[1], "--cpus=64"));
}

TEST_CASE("variables come from the command line, the environment, the suite, in this order") {
  ::setenv("SEVISOR_SUITE_TEST_B", "environment", 1);
  ::setenv("SEVISOR_SUITE_TEST_A", "environment", 1);
  ::setenv("SUITE_TEST_C", "another program's", 1);
  ::setenv("SUITE_TEST_D", "another program's", 1);
  const Suite suite = read(R"(
variables: {SUITE_TEST_A: suite, SUITE_TEST_B: suite, SUITE_TEST_C: suite}
cases:
  - {name: a, append: "${SUITE_TEST_A} ${SUITE_TEST_B} ${SUITE_TEST_C} ${SUITE_TEST_D} $${NOT} $x"}
)",
                           {{"SUITE_TEST_A", "set"}});
  CHECK(has(suite.cases.at(0), "--append=set environment suite another program's ${NOT} $x"));
  // Whoever meant the environment's learns that it is not taken.
  REQUIRE(suite.notes.size() == 1);
  CHECK_THAT(suite.notes[0],
             Contains("SUITE_TEST_C of the environment is not used") && Contains("SEVISOR_SUITE_TEST_C"));
}

TEST_CASE("a variable that the suite has not cannot be set") {
  const char* text =
      "variables: {KERNEL: vmlinuz}\n"
      "defaults: {memory: '${MEMORY}'}\n"
      "cases:\n  - {name: a, memory: 1G, append: '$${NOT} ${APPEND}'}\n";
  const Variables good = {{"APPEND", "x"}, {"KERNEL", "k"}, {"MEMORY", "2G"}};  // one is named only where none looks
  CHECK_NOTHROW(read(text, good));
  for (const char* name : {"KERNL", "NOT", "kernel", ""}) {
    Variables set = good;
    set[name] = "x";
    CAPTURE(name);
    try {
      (void)read(text, set);
      FAIL("it was taken");
    } catch (const Error& error) {
      CHECK(error.exit_code() == ExitCode::kBadUsage);
      CHECK_THAT(error.came_back(), Contains("has no variable '" + std::string(name) + "'"));
      CHECK(error.advice() == "There are: APPEND, KERNEL, MEMORY.");
    }
  }
  CHECK_THROWS_AS(read("cases: [{name: a}]\n", {{"KERNEL", "k"}}), Error);
}

TEST_CASE("an empty command line is one, and a case's own arguments stand last") {
  const Suite suite = read("cases:\n  - {name: a, append: '', cpus: 2, arguments: [--log-level=debug, --append]}\n");
  CHECK(suite.cases.at(0).arguments ==
        std::vector<std::string>{"--append=", "--cpus=2", "--log-level=debug", "--append"});
}

TEST_CASE("what is wrong in a suite is named with its line and column") {
  struct Bad {
    const char* text;
    const char* where;
    const char* what;
  };
  const Bad bad[] = {
      {"cases:\n  - name: a\n    kernal: x\n", "line 3, column 5", "no key 'kernal'"},
      {"case: []\n", "line 1, column 1", "no key 'case'"},
      {"defaults: {nam: x}\ncases: [{name: a}]\n", "line 1, column 12", "no key 'nam'"},
      {"cases:\n  - name: a\n    steps:\n      - expct: x\n", "line 4, column 9", "no key 'expct'"},
      {"cases:\n  - name: a\n    steps:\n      - {expect: x, send: y}\n", "line 4", "one thing"},
      {"cases:\n  - name: a\n    steps:\n      - power-of\n", "line 4", "a step is a map"},
      {"cases:\n  - name: a\n    steps: [power-off, {wait: 1}]\n", "line 3", "after power-off"},
      {"cases:\n  - name: a\n    steps: [power-off]\n    exit: 0\n", "line 4", "no exit code"},
      {"cases:\n  - name: a\n    steps: [{expect: '('}]\n", "line 3", "cannot be matched: missing"},
      {"cases:\n  - name: a\n    initrd: ''\n", "line 3, column 13", "'initrd' is empty"},
      {"cases:\n  - name: a\n    memory: ${SUITE_TEST_EMPTY}\n", "line 3, column 13", "'memory' is empty"},
      {"cases:\n  - {name: ''}\n", "line 2", "'name' is empty"},
      {"cases:\n  - name: a\n    steps: [{send: ''}]\n", "line 3", "'send' is empty"},
      {"cases:\n  - name: a\n    steps: [{expect: ''}]\n", "line 3", "'expect' is empty"},
      {"cases:\n  - name: a\n    cpus: 0\n", "line 3, column 11", "from 1 to 255"},
      {"cases:\n  - name: a\n    cpus: two\n", "line 3, column 11", "'two'"},
      {"cases:\n  - name: a\n    timeout: -1\n", "line 3", "seconds"},
      {"cases:\n  - name: a\n    exit: 256\n", "line 3", "from 0 to 255"},
      {"cases:\n  - name: a\n    policy: none\n", "line 3", "'policy'"},
      {"cases:\n  - name: a\n    launch-digest: abc\n", "line 3", "64 hexadecimal"},
      {"cases:\n  - name: a\n    cpus: [1, 2]\n    launch-digest: "
       "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad\n",
       "line 3", "digest of its own"},
      {"cases:\n  - name: a\n  - name: a\n", "line 3", "two cases 'a'"},
      {"cases:\n  - name: a\n    name: b\n", "line 3", "twice"},
      {"cases:\n  - kernel: a\n", "line 2", "needs a 'name'"},
      {"cases:\n  - {name: a, append: '${SUITE_TEST_NONE}'}\n", "line 2, column 23", "SUITE_TEST_NONE"},
      {"cases:\n  - {name: a, append: '${X'}\n", "line 2", "brace"},
      {"cases: []\n", "line 1", "no case"},
      {"name: x\n", "line 1", "needs 'cases'"},
      {"cases: [\n", "line", ""},
      {"cases:\n  - name: [a]\n", "line 2", "one value"},
      {"- a\n", "line 1", "is a map"},
  };
  ::setenv("SUITE_TEST_EMPTY", "", 1);
  for (const Bad& item : bad) {
    INFO(item.text);
    try {
      (void)read(item.text);
      FAIL("it was taken");
    } catch (const Error& error) {
      CHECK(error.exit_code() == ExitCode::kBadUsage);
      CHECK_THAT(error.tried(), Contains(item.where));
      CHECK_THAT(error.came_back(), Contains(item.what));
    }
  }
  CHECK_THROWS_AS(read(""), Error);
  CHECK_THROWS_AS(read_suite("/nonexistent/suite.yaml", {}), Error);
}
