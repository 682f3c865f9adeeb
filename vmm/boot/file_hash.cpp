#include "vmm/boot/file_hash.hpp"

#include <cerrno>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>
#include <vector>

#include "base/error.hpp"
#include "base/unique_fd.hpp"

namespace sevisor::vmm {

namespace {
constexpr std::size_t kPiece = 64 << 10;  // bytes: stays in the processor's second-level cache
}

FileHash hash_file(std::string_view what, const std::string& path) {
  const auto refuse = [&](std::string came_back) -> void {
    throw Error(ExitCode::kBadUsage, fmt::format("read the {} '{}'", what, path), std::move(came_back),
                "Give the path of a regular file.");
  };
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!fd) refuse(errno_text(errno));
  struct stat status {};
  if (::fstat(fd.get(), &status) != 0) refuse(errno_text(errno));
  if (!S_ISREG(status.st_mode)) refuse("it is no regular file");
  ::posix_fadvise(fd.get(), 0, 0, POSIX_FADV_SEQUENTIAL);

  std::vector<std::byte> piece(kPiece);
  sev::Sha256 hash;
  FileHash result;
  for (;;) {
    const ssize_t got = ::read(fd.get(), piece.data(), piece.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) refuse(errno_text(errno));
    if (got == 0) break;
    hash.update(std::span(piece).first(static_cast<std::size_t>(got)));
    result.size += static_cast<std::uint64_t>(got);
  }
  result.sha256 = hash.finish();
  return result;
}

}  // namespace sevisor::vmm
