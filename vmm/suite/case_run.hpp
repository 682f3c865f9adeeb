// One case on one host: a `sevisor run` of its own, so that whatever happens to it stays in it.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "sev/certificate.hpp"
#include "vmm/suite/suite.hpp"

namespace sevisor::suite {

enum class Verdict {
  kPassed,
  kFailed,   // the guest, or its end, was not as the case says
  kError,    // there was no guest to look at: bad files, a host that cannot
  kStopped,  // the whole suite was stopped
};
[[nodiscard]] const char* verdict_name(Verdict verdict);  // "passed", ...

struct CaseResult {
  std::string name;
  std::string host;
  Verdict verdict = Verdict::kPassed;
  std::string summary;                  // one line: what was wrong
  std::vector<std::string> details;     // further lines
  std::vector<std::string> last_lines;  // of the console, if something was wrong
  double seconds = 0;
  int exit_code = 0;   // of the run
  std::string reason;  // for it, as the run said; may be empty
  std::string launch_digest;
  std::size_t steps_done = 0;
  std::size_t steps = 0;
  std::string command;  // to run it by hand
  std::string log;      // path; empty if none is kept
};

struct CaseSetting {
  std::string program;            // path of sevisor
  std::string host;               // "kernel" or "emulated"
  const sev::Certificate* pdh;    // of that host's platform; may be null if the case expects no launch digest
  std::string log;                // path; empty: none is kept
  const std::atomic<bool>& stop;  // ends the case soon
  std::function<void(std::size_t step)> progress;  // it is at this step now; may be empty
};

// Never throws for what the case does.
[[nodiscard]] CaseResult run_case(const Case& test, const CaseSetting& setting);

}  // namespace sevisor::suite
