#include "vmm/run/report_file.hpp"

#include <cerrno>
#include <cstdio>
#include <fcntl.h>
#include <filesystem>
#include <fmt/format.h>
#include <span>
#include <sys/stat.h>
#include <system_error>
#include <unistd.h>
#include <utility>

#include "base/error.hpp"
#include "base/output_file.hpp"

namespace sevisor::vmm {

namespace {

constexpr mode_t kReadableByAll = 0644;  // less the user's mask
constexpr int kMostLinks = 40;           // as the kernel follows

[[noreturn]] void refuse(const std::string& path, const std::string& option, std::string came_back) {
  throw Error(ExitCode::kBadUsage, fmt::format("write the report '{}'", path), std::move(came_back),
              fmt::format("Give a path that can be written with {}.", option));
}

}  // namespace

ReportFile::ReportFile(std::string path, std::string option) : path_(std::move(path)), option_(std::move(option)) {
  if (path_.empty()) refuse(path_, option_, "the path is empty");
  if (const auto number = descriptor_named(path_)) {
    const int flags = ::fcntl(*number, F_GETFL);
    if (flags < 0) refuse(path_, option_, errno_text(errno));
    if ((flags & O_ACCMODE) == O_RDONLY) refuse(path_, option_, errno_text(EACCES));
    return;
  }
  struct stat status {};
  const bool there = ::stat(path_.c_str(), &status) == 0;
  if (there && S_ISDIR(status.st_mode)) refuse(path_, option_, "it is a directory");
  if (can_be_replaced(path_)) return;
  const int error_number = errno;
  if (there && ::access(path_.c_str(), W_OK) != 0) refuse(path_, option_, errno_text(errno));
  if (there) return;
  if (::lstat(path_.c_str(), &status) != 0) refuse(path_, option_, errno_text(error_number));
  // A symbolic link to nothing yet: what it leads to will be made.
  std::filesystem::path target = path_;
  std::error_code error;
  for (int links = 0; links < kMostLinks && std::filesystem::is_symlink(target, error); ++links) {
    target = target.parent_path() / std::filesystem::read_symlink(target, error);
  }
  const std::filesystem::path folder = target.has_parent_path() ? target.parent_path() : ".";
  if (::access(folder.c_str(), W_OK | X_OK) != 0) refuse(path_, option_, errno_text(errno));
}

void ReportFile::write(const std::string& text) const {
  (void)std::fflush(stdout);  // what was said before stands before, where both go to one place
  const int error = write_file_whole(path_, std::as_bytes(std::span(text)), kReadableByAll);
  if (error != 0) refuse(path_, option_, errno_text(error));
}

}  // namespace sevisor::vmm
