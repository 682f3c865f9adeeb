// Random integer instructions on the host's processor and in the engine: everything the manuals define must agree.
//
// SEVISOR_DIFF_CASES: number of instructions per mode (default 100000). SEVISOR_DIFF_SEED: another sequence.
#include <algorithm>
#include <catch2/catch.hpp>
#include <cstdlib>
#include <fmt/format.h>
#include <set>
#include <string>

#include "tests/cpu_diff/conclude.hpp"
#include "tests/cpu_diff/differences.hpp"
#include "tests/cpu_diff/engine.hpp"
#include "tests/cpu_diff/integer.hpp"
#include "tests/cpu_diff/native.hpp"
#include "tests/cpu_diff/operands.hpp"

namespace sevisor::cpu_diff {

namespace {

std::uint64_t from_environment(const char* name, std::uint64_t otherwise) {
  const char* text = std::getenv(name);  // NOLINT(concurrency-mt-unsafe): one thread
  return text == nullptr ? otherwise : std::strtoull(text, nullptr, 0);
}

void run(Mode mode) {
  const std::uint64_t cases = from_environment("SEVISOR_DIFF_CASES", 100000);
  Random random(from_environment("SEVISOR_DIFF_SEED", 1) * 2 + (mode == Mode::k64 ? 0 : 1));
  Native native;
  Engine engine;
  Findings findings;
  std::set<ZydisMnemonic> seen;
  int completed = 0;
  for (std::uint64_t n = 0; n < cases; ++n) {
    Encoding e = random_encoding(random, mode, integer_wanted);
    Machine before = random_machine(random);
    narrow(mode, before);
    if (!aim(random, mode, e, before) || integer_result_undefined(e, before)) continue;
    narrow(mode, before);
    Machine expected = before;
    Machine actual = before;
    native.run(e.code(), mode, expected);
    if (mode == Mode::k32) {  // R8 to R15 do not exist
      std::copy(before.regs.gpr.begin() + 8, before.regs.gpr.end(), expected.regs.gpr.begin() + 8);
    }
    seen.insert(e.info.mnemonic);
    if (expected.exception == kNoException) ++completed;
    const std::string form =
        fmt::format("{} {}", mode == Mode::k64 ? "64-bit" : "32-bit", ZydisMnemonicGetString(e.info.mnemonic));
    const std::string ran = fmt::format("case {}: {}", n, describe(mode, e, before));
    try {
      engine.run(e.code(), mode, actual);
      std::uint64_t ignored = undefined_flags(e, before);
      // The engine's small budget interrupts a long comparison before it faults.
      if (expected.exception != kNoException && e.info.meta.category == ZYDIS_CATEGORY_STRINGOP)
        ignored = ~std::uint64_t{0};
      forgive_integer(e, expected, actual);
      forgive_host(host_processor(), {mode, e, before}, expected, actual);
      const std::string text = difference(expected, actual, ignored);
      if (!text.empty()) add_difference(findings, form, ran + text, check_cpu_only(e));
    } catch (const std::runtime_error& error) {
      add_failure(findings, form, fmt::format("{}  {}", ran, error.what()), check_cpu_only(e));
    }
  }
  conclude(findings);
  // Most cases must not end in a fault, and hardly an instruction may be missing.
  CHECK(completed > static_cast<int>(cases / 2));
  if (cases >= 100000) CHECK(seen.size() > 140);
}

}  // namespace

TEST_CASE("CMP and TEST with the branch after them do what the host's processor does") {
  const std::uint64_t cases = from_environment("SEVISOR_DIFF_CASES", 100000) / 2;
  Random random(from_environment("SEVISOR_DIFF_SEED", 1));
  Native native;
  Engine engine;
  const auto compares = [](const Encoding& e) {
    return (e.info.mnemonic == ZYDIS_MNEMONIC_CMP || e.info.mnemonic == ZYDIS_MNEMONIC_TEST) && integer_wanted(e);
  };
  int taken = 0;
  Findings findings;
  for (std::uint64_t n = 0; n < cases; ++n) {
    Encoding e = random_encoding(random, Mode::k64, compares);
    Machine before = random_machine(random);
    if (!aim(random, Mode::k64, e, before)) continue;
    std::vector<std::uint8_t> code(e.code().begin(), e.code().end());
    const std::uint8_t distance = static_cast<std::uint8_t>(kTaken - kCode - code.size() - 2);
    code.push_back(static_cast<std::uint8_t>(0x70 + random.below(16)));  // Jcc
    code.push_back(distance);
    Machine expected = before;
    Machine actual = before;
    native.run(code, Mode::k64, expected);
    engine.run(code, Mode::k64, actual);
    forgive_integer(e, expected, actual);
    forgive_host(host_processor(), {Mode::k64, e, before}, expected, actual);
    if (expected.rip == kTaken) ++taken;
    const std::string text = difference(expected, actual, undefined_flags(e, before));
    if (text.empty()) continue;
    const std::string ran =
        fmt::format("case {}: then {:02x}: {}", n, code[code.size() - 2], describe(Mode::k64, e, before));
    add_difference(findings, "CMP or TEST with the branch after it", ran + text, check_cpu_only(e));
  }
  conclude(findings);
  CHECK(taken > static_cast<int>(cases / 4));
  CHECK(taken < static_cast<int>(cases * 3 / 4));
}

TEST_CASE("64-bit integer instructions do what the host's processor does") { run(Mode::k64); }
TEST_CASE("32-bit integer instructions do what the host's processor does") { run(Mode::k32); }

}  // namespace sevisor::cpu_diff
