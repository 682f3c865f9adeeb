#include "vmm/boot/input_file.hpp"

#include <cerrno>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.hpp"
#include "base/unique_fd.hpp"
#include "vmm/text/size_text.hpp"

namespace sevisor::vmm {

FileBytes read_input_file(std::string_view what, const std::string& path, std::uint64_t max_size) {
  const auto refuse = [&](std::string came_back) {
    throw Error(ExitCode::kBadUsage, fmt::format("read the {} '{}'", what, path), std::move(came_back),
                fmt::format("Check the path given with --{}.", what));
  };
  // Without O_NONBLOCK a FIFO without a writer would hold up the start for ever.
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!fd) refuse(errno_text(errno));
  struct stat status {};
  if (::fstat(fd.get(), &status) != 0) refuse(errno_text(errno));
  if (S_ISDIR(status.st_mode)) refuse("it is a directory");
  if (!S_ISREG(status.st_mode)) refuse("it is not a regular file");
  if (status.st_size == 0) refuse("it is empty");
  const auto size = static_cast<std::uint64_t>(status.st_size);
  if (size > max_size) refuse(fmt::format("it has {} bytes, {} at most can be used", size, max_size));

  auto bytes = std::make_shared<std::vector<std::byte>>(size);
  std::size_t done = 0;
  while (done < size) {
    const ssize_t got = ::read(fd.get(), bytes->data() + done, size - done);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) refuse(errno_text(errno));
    if (got == 0) refuse("it became shorter while it was read");
    done += static_cast<std::size_t>(got);
  }
  return bytes;
}

}  // namespace sevisor::vmm
