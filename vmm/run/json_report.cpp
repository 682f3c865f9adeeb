#include "vmm/run/json_report.hpp"

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <fcntl.h>
#include <fmt/format.h>
#include <nlohmann/json.hpp>
#include <string_view>
#include <sys/stat.h>
#include <unistd.h>
#include <utility>

#include "base/error.hpp"
#include "base/unique_fd.hpp"
#include "sev/encoding.hpp"

namespace sevisor::vmm {

namespace {

[[noreturn]] void refuse(const std::string& path, const std::string& option, std::string came_back) {
  throw Error(ExitCode::kBadUsage, fmt::format("write the report '{}'", path), std::move(came_back),
              fmt::format("Give a path that can be written with {}.", option));
}

std::string folder_of(const std::string& path) {
  const std::size_t slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

void write_whole(int fd, std::string_view text, const std::string& path, const std::string& option) {
  while (!text.empty()) {
    const ssize_t written = ::write(fd, text.data(), text.size());
    if (written < 0 && errno != EINTR) refuse(path, option, errno_text(errno));
    if (written > 0) text.remove_prefix(static_cast<std::size_t>(written));
  }
}

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

bool ReportFile::is_special() const {
  struct stat status {};
  return ::stat(path_.c_str(), &status) == 0 && !S_ISREG(status.st_mode);
}

ReportFile::ReportFile(std::string path, std::string option) : path_(std::move(path)), option_(std::move(option)) {
  if (path_.empty()) refuse(path_, option_, "the path is empty");
  struct stat status {};
  if (::stat(path_.c_str(), &status) == 0 && S_ISDIR(status.st_mode)) refuse(path_, option_, "it is a directory");
  if (is_special()) {
    if (::access(path_.c_str(), W_OK) != 0) refuse(path_, option_, errno_text(errno));
    return;
  }
  // A nameless file in the folder shows whether one can be made there, and is gone whatever happens to this process.
  const std::string folder = folder_of(path_);
  const UniqueFd probe(::open(folder.c_str(), O_TMPFILE | O_WRONLY | O_CLOEXEC, 0600));
  if (!probe && (errno == EOPNOTSUPP || errno == EISDIR) && ::access(folder.c_str(), W_OK | X_OK) == 0) return;
  if (!probe) refuse(path_, option_, errno_text(errno));
}

void ReportFile::write(const std::string& text) const {
  if (is_special()) {
    const UniqueFd fd(::open(path_.c_str(), O_WRONLY | O_CLOEXEC));
    if (!fd) refuse(path_, option_, errno_text(errno));
    write_whole(fd.get(), text, path_, option_);
    return;
  }
  std::string temporary = path_ + ".XXXXXX";
  const UniqueFd fd(::mkostemp(temporary.data(), O_CLOEXEC));
  if (!fd) refuse(path_, option_, errno_text(errno));
  try {
    write_whole(fd.get(), text, path_, option_);
    constexpr mode_t kReadableByAll = 0644;  // mkostemp makes it private; less the user's mask
    const mode_t mask = ::umask(0);
    ::umask(mask);
    if (::fchmod(fd.get(), kReadableByAll & ~mask) != 0) refuse(path_, option_, errno_text(errno));
    if (::rename(temporary.c_str(), path_.c_str()) != 0) refuse(path_, option_, errno_text(errno));
  } catch (...) {
    ::unlink(temporary.c_str());
    throw;
  }
}

}  // namespace sevisor::vmm
