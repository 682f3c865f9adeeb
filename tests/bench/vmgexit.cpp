// What an intercepted instruction costs on the emulated host, from guest instruction to guest instruction: #VC, the
// handler of ghcb/guest, VMGEXIT, the host's answer, user space where it takes part, and back.
#include <chrono>
#include <cstdio>
#include <fmt/format.h>

#include "machine.hpp"

using namespace sevisor::nae;

int main() {
  struct Row {
    const char* name;
    std::uint64_t kind;
  };
  constexpr Row kRows[] = {{"OUT to a port of user space", 0},
                           {"CPUID", 1},
                           {"MMIO read of user space's device", 2},
                           {"MMIO read of the local APIC", 3}};
  constexpr std::uint64_t kRounds = 20'000;
  fmt::print("{:<34}{:>14}{:>16}\n", "", "microseconds", "instructions");
  for (const Row& row : kRows) {
    double best = 1e9;
    double instructions = 0;
    for (int turn = 0; turn < 5; ++turn) {
      Machine machine(Program::kBench, {.parameters = {kRounds, row.kind}});
      const auto begin = std::chrono::steady_clock::now();
      const End end = machine.run();
      const std::chrono::duration<double, std::micro> took = std::chrono::steady_clock::now() - begin;
      if (!end.passed()) {
        fmt::print(stderr, "{}: {}\n", row.name, end.text());
        return 1;
      }
      best = std::min(best, took.count() / static_cast<double>(kRounds));
      // A tick of the virtual clock is an instruction.
      instructions = static_cast<double>(end.result.values[0]) / static_cast<double>(kRounds);
    }
    fmt::print("{:<34}{:>14.2f}{:>16.0f}\n", row.name, best, instructions);
  }
  return 0;
}
