// A trace's summary as one HTML page, with its plots as SVG in it.
#include <algorithm>
#include <array>
#include <fmt/format.h>
#include <iterator>
#include <numeric>
#include <string_view>

#include "vmm/trace/trace_summary.hpp"

namespace sevisor::vmm {

namespace {

constexpr std::array<std::string_view, 9> kColours = {"#4269d0", "#efb118", "#ff725c", "#6cc5b0", "#3ca951",
                                                      "#a463f2", "#97bbf5", "#9c6b4e", "#9498a0"};
constexpr std::size_t kMostBars = 16;
constexpr double kPlotWidth = 900;
constexpr double kTimelineHeight = 260;
constexpr double kBarHeight = 22;
constexpr double kLabelWidth = 190;

constexpr std::string_view kStyle =
    "body{font:15px/1.4 system-ui,sans-serif;margin:2em auto;max-width:62em;padding:0 1em;color:#1b1e23}"
    "h1{font-size:1.4em}h2{font-size:1.1em;margin-top:2em}"
    "table{border-collapse:collapse;width:100%}td,th{padding:.2em .6em;text-align:right;border-bottom:1px solid #ddd}"
    "td:first-child,th:first-child,td.l,th.l{text-align:left}code{font:13px monospace}"
    "svg{max-width:100%;height:auto}svg text{font:12px system-ui,sans-serif;fill:#1b1e23}";

std::string escape(std::string_view text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

template <class... Args>
void add(std::string& page, fmt::format_string<Args...> format, Args&&... args) {
  fmt::format_to(std::back_inserter(page), format, std::forward<Args>(args)...);
}

struct Bar {
  std::string label;
  std::uint64_t value;
  std::string text;
};

void add_bars(std::string& page, std::string_view title, std::vector<Bar> bars) {
  std::stable_sort(bars.begin(), bars.end(), [](const Bar& a, const Bar& b) { return a.value > b.value; });
  if (bars.size() > kMostBars) bars.resize(kMostBars);
  if (bars.empty() || bars[0].value == 0) return;
  const double height = kBarHeight * static_cast<double>(bars.size());
  add(page, "<h2>{}</h2>\n<svg viewBox=\"0 0 {} {}\" width=\"{}\" role=\"img\">\n", escape(title), kPlotWidth, height,
      kPlotWidth);
  const double room = kPlotWidth - kLabelWidth - 90;
  for (std::size_t i = 0; i < bars.size(); ++i) {
    const double top = kBarHeight * static_cast<double>(i);
    const double width = room * static_cast<double>(bars[i].value) / static_cast<double>(bars[0].value);
    add(page,
        "<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"end\">{}</text>"
        "<rect x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{:.1f}\" fill=\"{}\"/>"
        "<text x=\"{:.1f}\" y=\"{:.1f}\">{}</text>\n",
        kLabelWidth - 8, top + 15, escape(bars[i].label), kLabelWidth, top + 3, std::max(width, 1.0), kBarHeight - 6,
        kColours[0], kLabelWidth + std::max(width, 1.0) + 6, top + 15, escape(bars[i].text));
  }
  page += "</svg>\n";
}

void add_timeline(std::string& page, const TraceSummary& summary) {
  if (summary.timeline.empty()) return;
  std::uint64_t most = 1;
  for (const TraceSummary::Bucket& bucket : summary.timeline) {
    most = std::max(most, std::accumulate(bucket.begin(), bucket.end(), std::uint64_t{0}));
  }
  const double column = (kPlotWidth - 60) / static_cast<double>(summary.timeline.size());
  add(page, "<h2>Timeline: exits in each {}, at most {}</h2>\n", duration_text(summary.bucket_ns), most);
  add(page, "<svg viewBox=\"0 0 {} {}\" width=\"{}\" role=\"img\">\n", kPlotWidth, kTimelineHeight + 24, kPlotWidth);
  for (std::size_t i = 0; i < summary.timeline.size(); ++i) {
    double bottom = kTimelineHeight;
    for (std::size_t n = 0; n < summary.timeline[i].size(); ++n) {
      const std::uint64_t count = summary.timeline[i][n];
      if (count == 0) continue;
      const double height = (kTimelineHeight - 10) * static_cast<double>(count) / static_cast<double>(most);
      bottom -= height;
      add(page,
          "<rect x=\"{:.2f}\" y=\"{:.2f}\" width=\"{:.2f}\" height=\"{:.2f}\" fill=\"{}\"><title>{}: {} from {}</title>"
          "</rect>\n",
          30 + column * static_cast<double>(i), bottom, std::max(column - 0.5, 0.5), height,
          kColours[n % kColours.size()], escape(summary.timeline_names[n]), count,
          duration_text(summary.bucket_ns * i));
    }
  }
  for (unsigned tick = 0; tick <= 4; ++tick) {
    const std::uint64_t at = summary.bucket_ns * summary.timeline.size() / 4 * tick;
    add(page, "<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"middle\">{}</text>\n", 30 + (kPlotWidth - 60) / 4 * tick,
        kTimelineHeight + 18, duration_text(at));
  }
  page += "</svg>\n<p>";
  for (std::size_t n = 0; n < summary.timeline_names.size(); ++n) {
    add(page, "<span style=\"color:{}\">&#9632;</span> {} &nbsp; ", kColours[n % kColours.size()],
        escape(summary.timeline_names[n]));
  }
  page += "</p>\n";
}

void add_tables(std::string& page, const TraceSummary& summary) {
  std::string kind;
  for (const TraceSummary::Row& row : summary.rows) {
    if (row.kind != kind) {
      if (!kind.empty()) page += "</table>\n";
      kind = row.kind;
      add(page,
          "<h2>{}</h2>\n<table><tr><th>name</th><th>count</th><th>refused</th><th>time</th><th>mean</th><th>longest</"
          "th>"
          "</tr>\n",
          escape(kind_title(kind)));
    }
    const bool timed = row.timed != 0;
    add(page, "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>\n", escape(row.name),
        row.count, row.refused, timed ? duration_text(row.total_ns) : "",
        timed ? duration_text(row.total_ns / row.timed) : "", timed ? duration_text(row.longest_ns) : "");
  }
  if (!kind.empty()) page += "</table>\n";
}

void add_slowest(std::string& page, const TraceSummary& summary) {
  if (summary.slowest.empty()) return;
  page +=
      "<h2>The slowest</h2>\n<table><tr><th>took</th><th>ended at</th><th>vCPU</th><th class=\"l\">what</th>"
      "<th class=\"l\">RIP</th></tr>\n";
  for (const TraceSummary::Slow& slow : summary.slowest) {
    add(page,
        "<tr><td>{}</td><td>{}</td><td>{}</td><td class=\"l\">{} {}</td><td class=\"l\"><code>{}</code></td></tr>\n",
        duration_text(slow.duration_ns), duration_text(slow.time_ns), slow.cpu, escape(kind_title(slow.kind)),
        escape(slow.name), escape(slow.rip));
  }
  page += "</table>\n";
}

}  // namespace

std::string trace_html(const TraceSummary& summary, const std::string& title) {
  std::string page = fmt::format(
      "<!DOCTYPE html>\n<html lang=\"en\"><head><meta "
      "charset=\"utf-8\"><title>{}</title><style>{}</style></head><body>\n"
      "<h1>{}</h1>\n<p>{} events, {} to {}",
      escape(title), kStyle, escape(title), summary.events, duration_text(summary.first_ns),
      duration_text(summary.last_ns));
  if (!summary.host.empty()) add(page, "; {} host, {} vCPUs", escape(summary.host), summary.cpus);
  page += ".</p>\n";
  if (summary.cut_off) page += "<p>The last line is cut off: the run did not end in an orderly way.</p>\n";
  add_timeline(page, summary);
  std::vector<Bar> counts;
  std::vector<Bar> times;
  for (const TraceSummary::Row& row : summary.rows) {
    const bool exit = row.kind == "vmgexit" || row.kind == "msr" || row.kind == "exit" || row.kind == "run";
    if (exit) counts.push_back({row.name, row.count, fmt::to_string(row.count)});
    if (row.timed != 0) {
      times.push_back({kind_title(row.kind) + " " + row.name, row.total_ns, duration_text(row.total_ns)});
    }
  }
  add_bars(page, "Exits by name", std::move(counts));
  add_bars(page, "Time by name", std::move(times));
  add_tables(page, summary);
  add_slowest(page, summary);
  page += "</body></html>\n";
  return page;
}

}  // namespace sevisor::vmm
