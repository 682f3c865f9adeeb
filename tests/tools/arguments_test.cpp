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
  // What an option needs is its value, whatever it looks like; an option that can do without takes the next word too.
  check_refused(tool({"run", "--kernel", "none", "--check", "fail"}), "read the kernel 'none'");
  check_refused(tool({"run", "--kernel", "none", "--kernel-hashes", "off", "--check"}), "read the kernel 'none'");
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

TEST_CASE("a misspelt option or command is answered with the one that it is like") {
  check_refused(tool({"run", "--krnel", "vmlinuz"}),
                "read '--krnel': there is no such option. Did you mean '--kernel'?");
  check_refused(tool({"run", "--kernal=vmlinuz"}), "Did you mean '--kernel'?");
  check_refused(tool({"run", "--cpu", "2"}), "Did you mean '--cpus'?");
  check_refused(tool({"mesure"}), "read 'mesure': there is no such command. Did you mean 'measure'?");
  check_refused(tool({"certs", "exprt"}), "Did you mean 'export'? 'sevisor certs --help'");
  check_refused(tool({"run", "vmlinuz", "initrd"}),
                "read 'vmlinuz': there is no such argument");  // the first, not the last
  check_refused(tool({"run", "-x"}), "'-x'");
  const Result far = tool({"run", "--quux"});
  check_refused(far, "there is no such option. 'sevisor run --help' lists");
  CHECK_THAT(far.err, !Catch::Contains("mean"));
}

TEST_CASE("help and version are told wherever they are asked for") {
  const std::string help = tool({"run", "--help"}).out;
  CHECK_THAT(help, Catch::Contains("--kernel"));
  CHECK(tool({"help", "run"}).out == help);
  CHECK(tool({"help", "certs", "show"}).out == tool({"certs", "show", "--help"}).out);
  CHECK(tool({"help"}).out == tool({"--help"}).out);
  check_refused(tool({"help", "rnu"}), "Did you mean 'run'?");
  const std::string version = tool({"--version"}).out;
  CHECK(version.starts_with("sevisor "));
  for (const char* command :
       {"run", "measure", "verify", "secret", "session", "certs", "firmware", "test", "doctor", "trace"}) {
    CAPTURE(command);
    CHECK(tool({command, "--version"}).out == version);
    CHECK_THAT(tool({command, "--help"}).out, Catch::Contains("Example"));
  }
  CHECK_THAT(tool({"--help"}).out, Catch::Contains("Examples:") && Catch::Contains("sevisor help COMMAND"));
}
