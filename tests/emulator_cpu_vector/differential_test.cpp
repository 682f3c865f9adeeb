// Every form of every x87, MMX, SSE and AVX instruction on the host's processor and in the engine: registers, memory,
// flags and exceptions must agree.
//
// SEVISOR_DIFF_CASES: cases per form (default 30). SEVISOR_DIFF_SEED: another sequence. SEVISOR_DIFF_ONLY: only forms
// whose name begins so, for example "addps" or "vex vp".
#include <algorithm>
#include <catch2/catch.hpp>
#include <cstdlib>
#include <fmt/format.h>
#include <string>

#include "tests/cpu_diff/conclude.hpp"
#include "tests/cpu_diff/differences.hpp"
#include "tests/cpu_diff/engine.hpp"
#include "tests/cpu_diff/form_table.hpp"
#include "tests/cpu_diff/integer.hpp"
#include "tests/cpu_diff/native.hpp"
#include "tests/cpu_diff/operands.hpp"
#include "tests/cpu_diff/vector.hpp"
#include "tests/cpu_diff/vector_state.hpp"

namespace sevisor::cpu_diff {

namespace {

std::string text_from_environment(const char* name, const std::string& otherwise) {
  const char* text = std::getenv(name);  // NOLINT(concurrency-mt-unsafe): one thread
  return text == nullptr ? otherwise : text;
}
std::uint64_t number_from_environment(const char* name, std::uint64_t otherwise) {
  return std::stoull(text_from_environment(name, std::to_string(otherwise)), nullptr, 0);
}

std::vector<FormEntry> vector_forms(Mode mode) {
  std::vector<FormEntry> forms = list_forms(mode);
  for (FormEntry& form : forms) std::erase_if(form.samples, [](const Encoding& e) { return !vector_wanted(e); });
  std::erase_if(forms, [](const FormEntry& form) { return form.samples.empty(); });
  return forms;
}

void run(Mode mode) {
  const std::uint64_t cases = number_from_environment("SEVISOR_DIFF_CASES", 30);
  const std::string only = text_from_environment("SEVISOR_DIFF_ONLY", "");
  Random random(number_from_environment("SEVISOR_DIFF_SEED", 1) * 2 + (mode == Mode::k64 ? 0 : 1));
  Native native;
  Engine engine;
  Findings findings;
  const std::vector<FormEntry> forms = vector_forms(mode);
  std::uint64_t completed = 0;
  std::uint64_t total = 0;
  for (const FormEntry& form : forms) {
    if (!form.name.starts_with(only)) continue;
    for (std::uint64_t n = 0; n < cases; ++n) {
      Encoding e;
      if (!vary(random, mode, form, e)) continue;
      Machine before = random_machine(random);
      randomize_vector(random, before);
      narrow(mode, before);
      if (!aim(random, mode, e, before)) continue;
      prepare_operand(random, e, before);
      narrow(mode, before);
      Machine expected = before;
      Machine actual = before;
      native.run(e.code(), mode, expected);
      if (mode == Mode::k32)
        std::copy(before.regs.gpr.begin() + 8, before.regs.gpr.end(), expected.regs.gpr.begin() + 8);
      ++total;
      if (expected.exception == kNoException) ++completed;
      const std::string name = (mode == Mode::k64 ? "64-bit " : "32-bit ") + form.name;
      const std::string ran = fmt::format("case {}: {}{}", n, describe(mode, e, before), describe_vector(before));
      try {
        engine.run(e.code(), mode, actual);
        forgive_vector(mode, e, before, expected, actual);
        forgive_host(host_processor(), {mode, e, before}, expected, actual);
        const std::string text = difference(expected, actual, 0) + vector_difference(mode, expected, actual);
        if (!text.empty()) add_difference(findings, name, ran + text, check_cpu_only(e));
      } catch (const std::runtime_error& error) {
        add_failure(findings, name, fmt::format("{}  {}", ran, error.what()), check_cpu_only(e));
      }
    }
  }
  fmt::print("{} forms, {} cases, {} without an exception, {} forms differ\n", forms.size(), total, completed,
             findings.size());
  conclude(findings);
  if (only.empty()) CHECK(completed > total / 2);
}

}  // namespace

TEST_CASE("64-bit vector instructions do what the host's processor does") { run(Mode::k64); }
TEST_CASE("32-bit vector instructions do what the host's processor does") { run(Mode::k32); }

}  // namespace sevisor::cpu_diff
