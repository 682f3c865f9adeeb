#include "base/output_file.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <climits>
#include <cstdlib>
#include <fcntl.h>
#include <string_view>
#include <sys/stat.h>
#include <unistd.h>

namespace sevisor {

namespace {

constexpr int kMostLinks = 40;  // as the kernel follows

std::string folder_of(const std::string& path) {
  const std::size_t slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

std::optional<int> descriptor_of_name(std::string_view path) {
  if (path == "-" || path == "/dev/stdout") return STDOUT_FILENO;
  if (path == "/dev/stderr") return STDERR_FILENO;
  for (const std::string_view folder : {"/dev/fd/", "/proc/self/fd/"}) {
    if (!path.starts_with(folder)) continue;
    const std::string_view digits = path.substr(folder.size());
    int number = -1;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), number);
    if (error == std::errc{} && end == digits.data() + digits.size() && number >= 0) return number;
  }
  return std::nullopt;
}

// A new file beside it takes the name, so that nobody sees half of it.
int replace(const std::string& path, std::span<const std::byte> bytes, mode_t mode) {
  std::string temporary = path + ".XXXXXX";
  UniqueFd fd(::mkostemp(temporary.data(), O_CLOEXEC));
  if (!fd) return errno;
  const mode_t mask = ::umask(0);
  ::umask(mask);
  int error = write_whole(fd.get(), bytes);
  if (error == 0 && ::fchmod(fd.get(), mode & ~mask) != 0) error = errno;
  if (error == 0 && ::close(fd.release()) != 0) error = errno;  // where a quota is told
  if (error == 0 && ::rename(temporary.c_str(), path.c_str()) != 0) error = errno;
  if (error != 0) ::unlink(temporary.c_str());
  return error;
}

int write_in_place(const std::string& path, std::span<const std::byte> bytes, mode_t mode) {
  UniqueFd fd = open_output(path, O_TRUNC, mode);
  if (!fd) return errno;
  // What only its owner may read stays so, whoever could read the file before.
  struct stat status {};
  const bool for_owner = (mode & (S_IRWXG | S_IRWXO)) == 0;
  if (for_owner && ::fstat(fd.get(), &status) == 0 && S_ISREG(status.st_mode) && ::fchmod(fd.get(), mode) != 0)
    return errno;
  const int error = write_whole(fd.get(), bytes);
  if (error != 0) return error;
  return ::close(fd.release()) == 0 ? 0 : errno;
}

}  // namespace

std::optional<int> descriptor_named(const std::string& path) {
  std::string at = path;
  for (int links = 0; links < kMostLinks; ++links) {
    if (const auto number = descriptor_of_name(at)) return number;
    std::array<char, PATH_MAX> target{};
    const ssize_t size = ::readlink(at.c_str(), target.data(), target.size());
    if (size <= 0) return std::nullopt;
    const std::string_view next(target.data(), static_cast<std::size_t>(size));
    at = next.front() == '/' ? std::string(next) : folder_of(at).append("/").append(next);
  }
  return std::nullopt;
}

UniqueFd open_output(const std::string& path, int flags, mode_t mode) noexcept {
  try {
    if (const auto number = descriptor_named(path)) return UniqueFd(::fcntl(*number, F_DUPFD_CLOEXEC, 0));
  } catch (...) {
    errno = ENOMEM;
    return {};
  }
  return UniqueFd(::open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC | flags, mode));
}

int write_whole(int fd, std::span<const std::byte> bytes) noexcept {
  while (!bytes.empty()) {
    const ssize_t written = ::write(fd, bytes.data(), bytes.size());
    if (written < 0 && errno != EINTR) return errno;
    if (written > 0) bytes = bytes.subspan(static_cast<std::size_t>(written));
  }
  return 0;
}

bool can_be_replaced(const std::string& path) {
  if (descriptor_named(path)) return false;
  struct stat status {};
  const bool there = ::lstat(path.c_str(), &status) == 0;
  if (there && !S_ISREG(status.st_mode)) return false;
  // A nameless file in the folder shows whether one can be made there, and is gone whatever happens to this process.
  const std::string folder = folder_of(path);
  const UniqueFd probe(::open(folder.c_str(), O_TMPFILE | O_WRONLY | O_CLOEXEC, 0600));
  if (probe) return true;
  return (errno == EOPNOTSUPP || errno == EISDIR) && ::access(folder.c_str(), W_OK | X_OK) == 0;
}

int write_file_whole(const std::string& path, std::span<const std::byte> bytes, mode_t mode) {
  if (!can_be_replaced(path)) return write_in_place(path, bytes, mode);
  const int error = replace(path, bytes, mode);
  // A file that something is mounted on keeps its place, as in a container.
  return error == EBUSY || error == EXDEV ? write_in_place(path, bytes, mode) : error;
}

}  // namespace sevisor
