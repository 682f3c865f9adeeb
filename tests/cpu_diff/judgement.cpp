#include "tests/cpu_diff/judgement.hpp"

#include <algorithm>
#include <array>
#include <fmt/format.h>

namespace sevisor::cpu_diff {

namespace {

// By model ranges of AMD's, which are a core generation's. Of Intel's no run is recorded with its model.
constexpr std::array kTried = std::to_array<Tried>({
    {Vendor::kAmd, 0x19, 0x00, 0x0f, "Zen 3, EPYC 7003 (Milan)"},
    {Vendor::kAmd, 0x19, 0x10, 0x1f, "Zen 4, EPYC 9004 (Genoa)"},
});

Finding& found(Findings& findings, const std::string& form, const std::string& first, const std::string& repeat) {
  Finding& f = findings[form];
  if (f.differences == 0 && f.failures == 0) {
    f.first = first;
    f.repeat = repeat;
  }
  return f;
}

std::string listed(const std::string& form, const Finding& f) {
  std::string text = fmt::format("{}: {} differences", form, f.differences);
  if (f.failures != 0) text += fmt::format(", {} FAILURES", f.failures);
  text += fmt::format("; more: {}\n", f.repeat);
  if (!f.first.empty()) text += f.first + (f.first.ends_with('\n') ? "" : "\n");
  return text;
}

}  // namespace

std::span<const Tried> tried_processors() { return kTried; }

bool is_tried(const Processor& p) {
  return std::any_of(kTried.begin(), kTried.end(), [&](const Tried& t) {
    return t.vendor == p.vendor() && t.family == p.family && t.first_model <= p.model && p.model <= t.last_model;
  });
}

void add_difference(Findings& findings, const std::string& form, const std::string& first, const std::string& repeat) {
  ++found(findings, form, first, repeat).differences;
}

void add_failure(Findings& findings, const std::string& form, const std::string& first, const std::string& repeat) {
  ++found(findings, form, first, repeat).failures;
}

Judgement judge(const Processor& processor, const Findings& findings) {
  if (findings.empty()) return {};
  const bool failed =
      std::any_of(findings.begin(), findings.end(), [](const auto& f) { return f.second.failures != 0; });
  const bool tried = is_tried(processor);
  Judgement judgement{.passed = !tried && !failed, .report = {}};
  judgement.report = fmt::format("{} differs from the emulated processor in {} forms:\n", describe_processor(processor),
                                 findings.size());
  for (const auto& [form, finding] : findings) judgement.report += listed(form, finding);
  if (!tried) {
    judgement.report +=
        "Nobody has tried this processor before: differences alone do not fail ./dev test. Please report the list,\n"
        "docs/testing.md, \"A processor that nobody has tried\", says how.\n";
  }
  if (failed) judgement.report += "The engine failed, which it must not on any processor.\n";
  return judgement;
}

}  // namespace sevisor::cpu_diff
