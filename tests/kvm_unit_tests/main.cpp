// Runs one flat image of kvm-unit-tests on the emulated processor, without SEV-ES. Exit code: 0 if the image says that
// all passed, 1 if not, 2 if it did not come to its end, 77 if it skipped itself.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <fmt/format.h>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "base/error.hpp"
#include "plain_machine.hpp"

using namespace sevisor;
using namespace sevisor::kvm_unit_tests;

namespace {

constexpr int kPassed = 0;
constexpr int kFailed = 1;
constexpr int kBroken = 2;
constexpr int kSkipped = 77;

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Runs a flat image of kvm-unit-tests on the emulated processor");
  std::string path;
  std::string arguments;
  unsigned vcpus = 1;
  std::uint64_t limit = 20'000'000'000;
  app.add_option("image", path, "a .flat file")->required();
  app.add_option("--append", arguments, "the test's arguments");
  app.add_option("--smp", vcpus, "number of vCPUs")->check(CLI::Range(1, 64));
  app.add_option("--instructions", limit, "give up after so many");
  CLI11_PARSE(app, argc, argv);
  (void)std::setvbuf(stdout, nullptr, _IOLBF, 0);
  try {
    std::ifstream file(path, std::ios::binary);
    const std::vector<char> image{std::istreambuf_iterator<char>(file), {}};
    PlainMachine machine(std::as_bytes(std::span(image)), path + " " + arguments, vcpus);
    const Ending ending = machine.run(limit);
    std::fflush(stdout);
    switch (ending.why) {
      case Ending::Why::kExit:
        // report_summary(): 0, 1 for failures, 77 when all was skipped.
        return ending.code == 0 ? kPassed : ending.code == kSkipped ? kSkipped : kFailed;
      case Ending::Why::kShutdown:
        fmt::print("--- triple fault\n{}\n", ending.detail);
        return kBroken;
      case Ending::Why::kStuck:
        fmt::print("--- stuck: {}\n", ending.detail);
        return kBroken;
      case Ending::Why::kLimit:
        fmt::print("--- not done after {} instructions\n{}\n", limit, ending.detail);
        return kBroken;
      case Ending::Why::kUnsupported:
        fmt::print("--- cannot go on: {}\n", ending.detail);
        return kBroken;
    }
  } catch (const Error& error) {
    fmt::print(stderr, "{}\n", error.what());
  }
  return kBroken;
}
