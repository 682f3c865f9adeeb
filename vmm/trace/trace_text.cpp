// A trace's summary as text.
#include <algorithm>
#include <fmt/format.h>
#include <numeric>

#include "vmm/trace/trace_summary.hpp"

namespace sevisor::vmm {

namespace {

constexpr std::size_t kTextBuckets = 30;
constexpr std::size_t kBarColumns = 50;

void add_rows(std::string& text, const TraceSummary& summary) {
  std::string kind;
  for (const TraceSummary::Row& row : summary.rows) {
    if (row.kind != kind) {
      kind = row.kind;
      text += fmt::format("\n{:<32}{:>10}{:>9}{:>13}{:>13}{:>13}\n", kind_title(kind), "count", "refused", "time",
                          "mean", "longest");
    }
    text +=
        fmt::format("  {:<30}{:>10}{:>9}", row.name, row.count, row.refused == 0 ? "" : fmt::to_string(row.refused));
    if (row.timed != 0) {
      text += fmt::format("{:>13}{:>13}{:>13}", duration_text(row.total_ns), duration_text(row.total_ns / row.timed),
                          duration_text(row.longest_ns));
    }
    text += '\n';
  }
}

void add_slowest(std::string& text, const TraceSummary& summary) {
  if (summary.slowest.empty()) return;
  text += "\nthe slowest\n";
  for (const TraceSummary::Slow& slow : summary.slowest) {
    text += fmt::format("  {:>12}  at {:>12}  vCPU {:<4}{:<9}{:<20} {}\n", duration_text(slow.duration_ns),
                        duration_text(slow.time_ns), slow.cpu, slow.kind, slow.name, slow.rip);
  }
}

void add_timeline(std::string& text, const TraceSummary& summary) {
  if (summary.timeline.empty()) return;
  const std::size_t together = (summary.timeline.size() + kTextBuckets - 1) / kTextBuckets;
  std::vector<TraceSummary::Bucket> buckets;
  for (std::size_t i = 0; i < summary.timeline.size(); ++i) {
    if (i % together == 0) buckets.emplace_back(summary.timeline_names.size());
    for (std::size_t n = 0; n < buckets.back().size(); ++n) buckets.back()[n] += summary.timeline[i][n];
  }
  std::uint64_t most = 1;
  const auto total = [](const TraceSummary::Bucket& b) {
    return std::accumulate(b.begin(), b.end(), std::uint64_t{0});
  };
  for (const auto& bucket : buckets) most = std::max(most, total(bucket));
  text += fmt::format("\ntimeline: exits in each {}\n", duration_text(summary.bucket_ns * together));
  for (std::size_t i = 0; i < buckets.size(); ++i) {
    const std::uint64_t count = total(buckets[i]);
    const auto columns = static_cast<std::size_t>(static_cast<double>(count) / static_cast<double>(most) *
                                                  static_cast<double>(kBarColumns));
    const auto chief = std::max_element(buckets[i].begin(), buckets[i].end()) - buckets[i].begin();
    text += fmt::format("  {:>12} {:>9} {:<{}} {}\n", duration_text(summary.bucket_ns * together * i), count,
                        std::string(count != 0 ? std::max<std::size_t>(columns, 1) : 0, '#'), kBarColumns,
                        count != 0 ? summary.timeline_names[static_cast<std::size_t>(chief)] : "");
  }
}

}  // namespace

std::string trace_text(const TraceSummary& summary) {
  std::string text = fmt::format("{} events, {} to {}", summary.events, duration_text(summary.first_ns),
                                 duration_text(summary.last_ns));
  if (!summary.host.empty()) text += fmt::format(", {} host, {} vCPUs", summary.host, summary.cpus);
  text += '\n';
  if (summary.cut_off) text += "The last line is cut off: the run did not end in an orderly way.\n";
  add_rows(text, summary);
  add_slowest(text, summary);
  add_timeline(text, summary);
  return text;
}

}  // namespace sevisor::vmm
