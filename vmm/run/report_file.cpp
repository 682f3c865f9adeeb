#include "vmm/run/report_file.hpp"

#include <cerrno>
#include <cstdlib>
#include <fcntl.h>
#include <fmt/format.h>
#include <string_view>
#include <sys/stat.h>
#include <unistd.h>
#include <utility>

#include "base/error.hpp"
#include "base/unique_fd.hpp"

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

}  // namespace

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
