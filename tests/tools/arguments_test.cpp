// The command line itself: what options, words and empty values mean, in each command.
#include <algorithm>

#include "tool.hpp"

using namespace sevisor::test;

namespace {

using Words = std::vector<std::string>;

Result tool(const Words& args) {
  const WorkFolder folder;
  return sevisor::test::sevisor(folder, args);
}

Words operator+(Words a, const Words& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

}  // namespace

TEST_CASE("an empty command line is one, however it is written, and takes no other argument") {
  const WorkFolder folder;
  put_file(folder / "kernel", Bytes(5000, std::byte{7}));
  const auto digest = [&folder](const Words& words) {
    const Result result = sevisor::test::sevisor(
        folder, Words{"measure", "--mode", "seves", "--vcpu-type", "EPYC-v4", "--kernel", "kernel"} + words);
    CAPTURE(words, result.err);
    REQUIRE(result.code == 0);
    return result.out;
  };
  const std::string expected = digest({"--vcpus", "2"});
  CHECK(digest({"--append=", "--vcpus=2"}) == expected);
  CHECK(digest({"--append", "", "--vcpus=2"}) == expected);
  CHECK(digest({"--vcpus=2", "--append="}) == expected);
  CHECK(digest({"--vcpus=2", "--append=", "-v"}) == "Calculated SEV_ES guest measurement: " + expected);
  // What an option needs is its value, whatever it looks like.
  const std::string odd = digest({"--append=--vcpus=", "--vcpus=2"});
  CHECK(odd != expected);
  CHECK(digest({"--append", "--vcpus=", "--vcpus=2"}) == odd);
}

TEST_CASE("an empty value of any other option is refused by the option's name") {
  const std::pair<Words, Words> commands[] = {
      {{"run"}, {"--kernel",   "--initrd", "--kernel-hashes", "--firmware",     "--vars",    "--cpus",
                 "--cpu-type", "--memory", "--policy",        "--host",         "--timeout", "--expect",
                 "--rtc",      "--pin",    "--json",          "--trace",        "--record",  "--inject-failure",
                 "--check",    "--secret", "--dump-memory",   "--launch-report"}},
      {{"measure", "--mode", "sev"}, {"--kernel", "--initrd", "--ovmf", "--vcpus", "--nonce", "--ovmf-hash", "--tik"}},
      {{"verify"}, {"--measurement", "--tik", "--firmware", "--kernel", "--initrd", "--inject-secret"}},
      {{"secret"}, {"--secret", "--table", "--out", "--tk"}},
      {{"session"}, {"--host", "--certs", "--out", "--roots"}},
      {{"certs", "show"}, {"--host", "--certs", "--roots"}},
      {{"test", "suite.yaml"}, {"--host", "--jobs", "--filter", "--set", "--junit", "--json", "--logs"}},
      {{"doctor"}, {"--host", "--json"}},
      {{"trace", "file"}, {"--html"}},
  };
  for (const auto& [command, options] : commands) {
    for (const std::string& option : options) {
      CAPTURE(command, option);
      check_refused(tool(command + Words{option + "="}), option + ": its value is empty");
      check_refused(tool(command + Words{option, ""}), option + ": its value is empty");
      check_refused(tool(command + Words{option + "=", "--log-level=off"}));  // and not the next word
    }
  }
  check_refused(tool({"verify", "-m", ""}), "--measurement: its value is empty");
  check_refused(tool({"test", ""}), "its value is empty");
  check_refused(tool({"trace", ""}), "its value is empty");
}

TEST_CASE("a switch takes no value, and nothing is an option after --") {
  check_refused(tool({"test", "suite.yaml", "--list="}), "--list: it takes no value");
  check_refused(tool({"firmware", "--", "--json="}), "--json=': No such file");
}
