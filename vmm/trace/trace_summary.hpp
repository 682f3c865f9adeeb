// What a trace says when it is summed up. It may come from anybody: the reader's memory does not grow with the file.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <istream>
#include <map>
#include <string>
#include <vector>

namespace sevisor::vmm {

struct TraceSummary {
  // What happened, by kind and name: how often, how often it was refused, and the time it took where that is known.
  struct Row {
    std::string kind;  // "vc", "vmgexit", "msr", "exit", "inject", "psp", "run", "sev"
    std::string name;
    std::uint64_t count = 0;
    std::uint64_t refused = 0;
    std::uint64_t timed = 0;  // of the count
    std::uint64_t total_ns = 0;
    std::uint64_t longest_ns = 0;
  };
  struct Slow {
    std::uint64_t duration_ns = 0;
    std::uint64_t time_ns = 0;  // when it ended
    std::uint64_t cpu = 0;
    std::string kind;
    std::string name;
    std::string rip;
  };
  // Counts of one stretch of time, in the order of `timeline_names`.
  using Bucket = std::vector<std::uint64_t>;

  std::string host;  // empty: the trace does not say
  std::uint64_t cpus = 0;
  std::uint64_t events = 0;
  std::uint64_t first_ns = 0;
  std::uint64_t last_ns = 0;
  bool cut_off = false;                     // the last line is not whole
  std::vector<Row> rows;                    // by kind, the most frequent first
  std::vector<Slow> slowest;                // the slowest first, each RIP once
  std::uint64_t bucket_ns = 0;              // width of a bucket
  std::vector<Bucket> timeline;             // from time 0 on
  std::vector<std::string> timeline_names;  // the most frequent first; the last may be "others"
};

// Throws Error (kBadUsage) with the number of the line that is no line of a trace. `name`: for messages.
[[nodiscard]] TraceSummary summarise_trace(std::istream& trace, const std::string& name);

// For a terminal.
[[nodiscard]] std::string trace_text(const TraceSummary& summary);
// One page without scripts that refers to nothing outside itself.
[[nodiscard]] std::string trace_html(const TraceSummary& summary, const std::string& title);

// "12.345 ms": of a time in ns.
[[nodiscard]] std::string duration_text(std::uint64_t ns);
// What a kind of row is called.
[[nodiscard]] std::string kind_title(const std::string& kind);

}  // namespace sevisor::vmm
