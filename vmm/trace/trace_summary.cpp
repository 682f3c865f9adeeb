#include "vmm/trace/trace_summary.hpp"

#include <algorithm>
#include <fmt/format.h>
#include <nlohmann/json.hpp>
#include <optional>
#include <streambuf>
#include <string_view>
#include <tuple>
#include <utility>

#include "base/error.hpp"
#include "vmm/trace/trace_line.hpp"

namespace sevisor::vmm {

namespace {

using nlohmann::json;

constexpr std::size_t kMostLineBytes = 64 * 1024;
constexpr std::size_t kMostNames = 512;  // rows; what comes later counts as "others"
constexpr std::size_t kMostNameBytes = 40;
constexpr std::size_t kMostSlow = 20;
constexpr std::size_t kBuckets = 120;
constexpr std::size_t kTimelineNames = 8;
constexpr std::uint64_t kFirstBucketNs = 1000;
constexpr std::string_view kOthers = "others";

// In the order in which they are shown.
constexpr std::string_view kKinds[] = {"vc", "vmgexit", "msr", "exit", "run", "inject", "psp", "sev"};

[[noreturn]] void refuse(const std::string& name, std::uint64_t line, std::string_view what) {
  throw Error(ExitCode::kBadUsage, fmt::format("read the trace '{}'", name), fmt::format("line {}: {}", line, what),
              "Give a file that 'sevisor run --trace' has written.");
}

// A text of the trace, fit to be shown.
std::string clean(std::string_view text) {
  std::string result(text.substr(0, kMostNameBytes));
  for (char& c : result) {
    if (static_cast<unsigned char>(c) < 0x20 || static_cast<unsigned char>(c) >= 0x7f) c = '?';
  }
  return result;
}

std::string text_of(const json& object, const char* member) {
  const auto found = object.find(member);
  return found != object.end() && found->is_string() ? clean(found->get_ref<const std::string&>()) : std::string();
}

std::optional<std::uint64_t> number_of(const json& object, const char* member) {
  const auto found = object.find(member);
  if (found == object.end() || !found->is_number_unsigned()) return std::nullopt;
  return found->get<std::uint64_t>();
}

std::uint64_t add_up(std::uint64_t a, std::uint64_t b) { return a + b < a ? ~std::uint64_t{0} : a + b; }

// One line, without its line feed. False at the end of the file.
bool next_line(std::istream& trace, std::string& line, bool& whole) {
  line.clear();
  whole = false;
  std::streambuf& bytes = *trace.rdbuf();
  for (int c = bytes.sbumpc(); c != std::istream::traits_type::eof(); c = bytes.sbumpc()) {
    if (c == '\n') {
      whole = true;
      return true;
    }
    if (line.size() == kMostLineBytes) return true;  // not whole: the caller refuses it
    line.push_back(static_cast<char>(c));
  }
  return !line.empty();
}

class Collector {
 public:
  // An event of `kind` and `name`. Null: it is of no kind that is shown.
  TraceSummary::Row* row(std::string_view kind, std::string_view name) {
    if (std::find(std::begin(kKinds), std::end(kKinds), kind) == std::end(kKinds)) return nullptr;
    auto key = std::pair(std::string(kind), std::string(name));
    if (rows_.size() >= kMostNames && !rows_.contains(key)) key.second = kOthers;
    TraceSummary::Row& found = rows_[key];
    found.kind = key.first;
    found.name = key.second;
    return &found;
  }

  void take_time(TraceSummary::Row& row, TraceSummary::Slow event) {
    ++row.timed;
    row.total_ns = add_up(row.total_ns, event.duration_ns);
    row.longest_ns = std::max(row.longest_ns, event.duration_ns);
    const auto slower = [](const TraceSummary::Slow& a, const TraceSummary::Slow& b) {
      return a.duration_ns > b.duration_ns;
    };
    if (slow_.size() == kMostSlow && !slower(event, slow_.back())) return;
    // The same place counts once, by its worst.
    const auto same = std::find_if(slow_.begin(), slow_.end(), [&event](const TraceSummary::Slow& s) {
      return !event.rip.empty() && s.rip == event.rip && s.name == event.name && s.kind == event.kind;
    });
    if (same != slow_.end()) {
      if (!slower(event, *same)) return;
      slow_.erase(same);
    }
    slow_.insert(std::upper_bound(slow_.begin(), slow_.end(), event, slower), std::move(event));
    if (slow_.size() > kMostSlow) slow_.pop_back();
  }

  void on_timeline(std::uint64_t time, const TraceSummary::Row& row) {
    while (time / bucket_ns_ >= kBuckets) widen();
    ++buckets_[time / bucket_ns_][&row];
  }

  void finish(TraceSummary& summary) {
    for (std::string_view kind : kKinds) {
      const std::size_t first = summary.rows.size();
      for (const auto& [key, row] : rows_) {
        if (row.kind == kind) summary.rows.push_back(row);
      }
      std::stable_sort(summary.rows.begin() + static_cast<std::ptrdiff_t>(first), summary.rows.end(),
                       [](const auto& a, const auto& b) { return a.count > b.count; });
    }
    summary.slowest = std::move(slow_);
    make_timeline(summary);
  }

 private:
  using Counts = std::map<const TraceSummary::Row*, std::uint64_t>;

  void widen() {
    for (std::size_t i = 0; i < kBuckets; ++i) {
      Counts moved = std::move(buckets_[i]);
      buckets_[i].clear();
      for (const auto& [row, count] : moved) buckets_[i / 2][row] += count;
    }
    bucket_ns_ *= 2;
  }

  void make_timeline(TraceSummary& summary) const {
    std::vector<std::pair<std::uint64_t, const TraceSummary::Row*>> by_count;
    Counts totals;
    for (const Counts& bucket : buckets_) {
      for (const auto& [row, count] : bucket) totals[row] += count;
    }
    for (const auto& [row, count] : totals) by_count.emplace_back(count, row);
    std::sort(by_count.begin(), by_count.end(), [](const auto& a, const auto& b) {
      return std::tie(b.first, a.second->name) < std::tie(a.first, b.second->name);
    });
    const bool too_many = by_count.size() > kTimelineNames;
    std::map<const TraceSummary::Row*, std::size_t> column;
    for (std::size_t i = 0; i < by_count.size(); ++i) {
      column[by_count[i].second] = std::min(i, kTimelineNames);
      if (i < kTimelineNames) summary.timeline_names.push_back(by_count[i].second->name);
    }
    if (too_many) summary.timeline_names.emplace_back(kOthers);
    summary.bucket_ns = bucket_ns_;
    std::size_t used = kBuckets;
    while (used > 0 && buckets_[used - 1].empty()) --used;
    for (std::size_t i = 0; i < used; ++i) {
      TraceSummary::Bucket counts(summary.timeline_names.size());
      for (const auto& [row, count] : buckets_[i]) counts[column.at(row)] += count;
      summary.timeline.push_back(std::move(counts));
    }
  }

  std::map<std::pair<std::string, std::string>, TraceSummary::Row> rows_;
  std::vector<TraceSummary::Slow> slow_;
  std::uint64_t bucket_ns_ = kFirstBucketNs;
  std::array<Counts, kBuckets> buckets_;
};

// A line that tells more of an event that another one has counted.
std::string_view counted_as(std::string_view kind) {
  if (kind == "vc_done") return "vc";
  if (kind == "reply") return "vmgexit";
  return {};
}

void take_event(const json& event, std::uint64_t time, Collector& collector) {
  const std::string kind = text_of(event, "ev");
  std::string name = text_of(event, "name");
  if (kind == "inject") name = fmt::format("{} {}", text_of(event, "type"), number_of(event, "vector").value_or(0));
  if (kind == "vmgexit" && name.empty()) name = "GHCB without memory";
  const std::string_view other = counted_as(kind);
  TraceSummary::Row* row = collector.row(other.empty() ? kind : other, name);
  if (row == nullptr) return;
  if (other.empty()) {
    ++row->count;
    // A #VC and the VMGEXIT that it leads to are one thing on the timeline.
    if (kind == "vmgexit" || kind == "msr" || kind == "exit" || kind == "run") collector.on_timeline(time, *row);
  }
  const std::string status = text_of(event, "status_name");
  if (event.contains("refused") || event.contains("raises") || event.contains("errno") ||
      (kind == "psp" && status != "SUCCESS")) {
    ++row->refused;
  }
  if (const auto ns = number_of(event, "ns")) {
    collector.take_time(*row, {.duration_ns = *ns,
                               .time_ns = time,
                               .cpu = number_of(event, "cpu").value_or(0),
                               .kind = row->kind,
                               .name = row->name,
                               .rip = text_of(event, "rip")});
  }
}

}  // namespace

TraceSummary summarise_trace(std::istream& trace, const std::string& name) {
  TraceSummary summary;
  Collector collector;
  std::string line;
  bool whole = false;
  for (std::uint64_t number = 1; next_line(trace, line, whole); ++number) {
    if (line.size() >= kMostLineBytes) refuse(name, number, fmt::format("longer than {} bytes", kMostLineBytes));
    const json event = json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (!event.is_object()) {
      if (!whole && number > 1) {
        summary.cut_off = true;
        break;
      }
      refuse(name, number, "not a JSON object");
    }
    if (number == 1) {
      if (text_of(event, "trace") != "sevisor") refuse(name, number, "not the first line of a trace");
      const auto version = number_of(event, "version");
      if (version != kTraceVersion) refuse(name, number, "a version of the format that is not known here");
      continue;
    }
    const auto time = number_of(event, "t");
    if (!time) refuse(name, number, "without a time 't'");
    if (text_of(event, "ev") == "host") {
      summary.host = text_of(event, "name");
      summary.cpus = number_of(event, "cpus").value_or(0);
      continue;
    }
    if (summary.events++ == 0) summary.first_ns = *time;
    summary.last_ns = std::max(summary.last_ns, *time);
    take_event(event, *time, collector);
  }
  if (summary.events == 0 && summary.host.empty()) refuse(name, 1, "there is nothing behind it");
  collector.finish(summary);
  return summary;
}

std::string duration_text(std::uint64_t ns) {
  const auto value = static_cast<double>(ns);
  if (ns < 1000) return fmt::format("{} ns", ns);
  if (ns < 1'000'000) return fmt::format("{:.2f} us", value / 1e3);
  if (ns < 1'000'000'000) return fmt::format("{:.2f} ms", value / 1e6);
  return fmt::format("{:.3f} s", value / 1e9);
}

std::string kind_title(const std::string& kind) {
  static constexpr std::pair<std::string_view, std::string_view> kTitles[] = {
      {"vc", "#VC"},
      {"vmgexit", "VMGEXIT, GHCB page"},
      {"msr", "VMGEXIT, MSR protocol"},
      {"exit", "automatic exits"},
      {"run", "exits of KVM_RUN"},
      {"inject", "injected events"},
      {"psp", "commands of the Secure Processor"},
      {"sev", "SEV commands"},
  };
  for (const auto& [known, title] : kTitles) {
    if (known == kind) return std::string(title);
  }
  return kind;
}

}  // namespace sevisor::vmm
