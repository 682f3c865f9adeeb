// A suite's results for other programs.
#pragma once

#include <string>
#include <vector>

#include "vmm/suite/case_run.hpp"

namespace sevisor::suite {

// JUnit XML, as CI systems read it: one testsuite, a testcase for each case and host. Control characters, which
// XML 1.0 forbids, are left out, and what is no UTF-8 becomes U+FFFD.
[[nodiscard]] std::string junit_report(const std::string& suite, const std::vector<CaseResult>& results);

// One object; docs/boot-tests.md describes it.
[[nodiscard]] std::string json_report(const std::string& suite, const std::vector<CaseResult>& results);

// "3 passed, 1 failed, 0 could not run".
[[nodiscard]] std::string summary_text(const std::vector<CaseResult>& results);

}  // namespace sevisor::suite
