// The report that --json writes.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "vmm/end/outcome.hpp"
#include "vmm/launch/launch.hpp"
#include "vmm/trace/guest_checker.hpp"

namespace sevisor::vmm {

struct ReportContents {
  std::string host;  // "kernel" or "emulated"
  std::uint32_t policy = 0;
  unsigned cpus = 1;
  std::string cpu_type;
  LaunchReport launch;
};

// One object, as docs/run.md describes it, with a line feed at its end.
// `history`: what the vCPU that ended the run did last, a line an event. `findings`: the checker's; null: it did not
// look.
[[nodiscard]] std::string json_report(const ReportContents& contents, const Outcome& outcome,
                                      const std::vector<std::string>& history = {},
                                      const std::vector<Finding>* findings = nullptr);
// Of a run that came to no guest, or was broken off: "exit" alone.
[[nodiscard]] std::string json_failure_report(const Outcome& outcome);
// The same as json_report() before the guest has run: without "exit".
[[nodiscard]] std::string json_launch_report(const ReportContents& contents);

}  // namespace sevisor::vmm
