#include "vmm/run/json_report.hpp"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "sev/encoding.hpp"

namespace sevisor::vmm {

namespace {

nlohmann::ordered_json launch_of(const ReportContents& contents) {
  nlohmann::ordered_json report;
  report["host"] = contents.host;
  const bool plain = contents.launch.init_api.empty();
  report["confidential"] = plain ? "none" : "sev-es";
  if (!plain) {
    report["init_api"] = contents.launch.init_api;
    report["policy"] = contents.policy;
    report["api_major"] = contents.launch.api.major;
    report["api_minor"] = contents.launch.api.minor;
    report["build_id"] = contents.launch.api.build;
    report["launch_digest"] = sev::to_hex(contents.launch.digest);
    report["measurement"] = sev::to_base64(contents.launch.measurement);
  }
  report["cpus"] = contents.cpus;
  report["cpu_type"] = contents.cpu_type;
  return report;
}

std::string text_of(const nlohmann::ordered_json& report) {
  return report.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + '\n';
}

}  // namespace

std::string json_launch_report(const ReportContents& contents) { return text_of(launch_of(contents)); }

std::string json_failure_report(const Outcome& outcome) {
  return text_of({{"exit", {{"code", outcome.code}, {"reason", outcome.reason}}}});
}

std::string json_report(const ReportContents& contents, const Outcome& outcome, const std::vector<std::string>& history,
                        const std::vector<Finding>* findings) {
  nlohmann::ordered_json report = launch_of(contents);
  report["exit"] = {{"code", outcome.code}, {"reason", outcome.reason}};
  if (!history.empty()) report["exit"]["history"] = history;
  if (findings != nullptr) {
    report["check"] = nlohmann::ordered_json::array();
    for (const Finding& f : *findings) {
      report["check"].push_back({{"rule", f.rule},
                                 {"detail", f.detail},
                                 {"rip", fmt::format("{:#x}", f.rip)},
                                 {"page", fmt::format("{:#x}", f.page)},
                                 {"cpu", f.vcpu},
                                 {"count", f.count}});
    }
  }
  return text_of(report);
}

}  // namespace sevisor::vmm
