// What differences mean on a processor that was tried, and on one that was not.
#include "tests/cpu_diff/judgement.hpp"

#include <catch2/catch.hpp>

#include "tests/emulator_cpu_vector/profiles.hpp"

namespace sevisor::cpu_diff {

namespace {

bool reports(const Judgement& judgement, std::string_view text) {
  return judgement.report.find(text) != std::string::npos;
}

}  // namespace

TEST_CASE("Zen 3 and Zen 4 servers have been tried") {
  for (const Processor& p : {zen3(), zen4(), zen4_guest()}) CHECK(is_tried(p));
  for (const Processor& p : {skylake_client(), sapphire_rapids(), zen2(), zen5(), hygon()}) CHECK_FALSE(is_tried(p));
  CHECK(is_tried(made_up("AuthenticAMD", 0x19, 0x0f, {})));
  CHECK(is_tried(made_up("AuthenticAMD", 0x19, 0x1f, {})));
  CHECK_FALSE(is_tried(made_up("AuthenticAMD", 0x19, 0x20, {})));
  CHECK_FALSE(is_tried(made_up("GenuineIntel", 0x19, 0x01, {})));
}

TEST_CASE("nothing found passes without a word") {
  for (const Processor& p : all_profiles()) {
    CHECK(judge(p, {}).passed);
    CHECK(judge(p, {}).report.empty());
  }
}

TEST_CASE("a difference is listed, and fails a processor that was tried") {
  Findings findings;
  add_difference(findings, "32-bit repe cmpsb", "  the first case", "./dev check-cpu --only cmpsb");
  add_difference(findings, "32-bit repe cmpsb", "  the second case", "./dev check-cpu --only cmpsb");
  add_difference(findings, "64-bit add r64, r64", "  another", "./dev check-cpu --only add");
  for (const Processor& p : all_profiles()) {
    const Judgement judgement = judge(p, findings);
    INFO(judgement.report);
    CHECK(judgement.passed == !is_tried(p));
    CHECK(reports(judgement, describe_processor(p)));
    CHECK(reports(judgement, "in 2 forms"));
    CHECK(reports(judgement, "32-bit repe cmpsb: 2 differences"));
    CHECK(reports(judgement, "64-bit add r64, r64: 1 differences"));
    CHECK(reports(judgement, "the first case"));
    CHECK_FALSE(reports(judgement, "the second case"));
    CHECK(reports(judgement, "./dev check-cpu --only cmpsb"));
    CHECK(reports(judgement, "Nobody has tried") == !is_tried(p));
  }
}

TEST_CASE("an engine that fails is wrong on every processor") {
  Findings findings;
  add_difference(findings, "64-bit add r64, r64", "  the first case", "");
  add_failure(findings, "64-bit add r64, r64", "  not implemented", "");
  for (const Processor& p : all_profiles()) {
    const Judgement judgement = judge(p, findings);
    CHECK_FALSE(judgement.passed);
    CHECK(reports(judgement, "1 FAILURES"));
  }
}

}  // namespace sevisor::cpu_diff
