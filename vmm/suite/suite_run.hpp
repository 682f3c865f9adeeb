// All cases of a suite, on one or more hosts, several at a time. Nothing is retried.
#pragma once

#include <atomic>
#include <map>
#include <string>
#include <vector>

#include "sev/certificate.hpp"
#include "vmm/suite/case_run.hpp"
#include "vmm/suite/progress.hpp"
#include "vmm/suite/suite.hpp"

namespace sevisor::suite {

struct SuiteSetting {
  std::string program;                           // path of sevisor
  std::vector<std::string> hosts;                // one, or two that are compared
  std::map<std::string, sev::Certificate> pdhs;  // of the hosts' platforms, by host, if a case needs them
  std::string logs;                              // folder; empty: no logs
  unsigned jobs = 1;
};

// The results are in the suite's order, host by host for each case. A case that passed on two hosts, but not with the
// same exit code and launch digest, fails on the second.
[[nodiscard]] std::vector<CaseResult> run_suite(const Suite& suite, const SuiteSetting& setting, Progress& progress,
                                                const std::atomic<bool>& stop);

// The name of a case's log, made of letters, digits, '-', '_' and '.' alone, and different for each `index`.
[[nodiscard]] std::string log_name(const std::string& test, const std::string& host, std::size_t index);

}  // namespace sevisor::suite
