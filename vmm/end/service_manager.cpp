#include "vmm/end/service_manager.hpp"

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdlib>
#include <fmt/format.h>
#include <spdlog/spdlog.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "base/error.hpp"
#include "base/unique_fd.hpp"

namespace sevisor::vmm {

namespace {

std::string_view environment(const char* name) {
  const char* value = ::getenv(name);  // NOLINT(concurrency-mt-unsafe): nothing changes the environment
  return value != nullptr ? value : "";
}

}  // namespace

ServiceManager::ServiceManager(std::string_view socket) : address_(socket) {
  // An abstract name fills sun_path to the last byte, a path needs a NUL behind it.
  const bool abstract = socket.starts_with('@');
  const std::size_t room = sizeof sockaddr_un{}.sun_path - (abstract ? 0 : 1);
  if (socket.size() < 2 || (!abstract && !socket.starts_with('/')) || socket.size() > room) {
    throw Error(ExitCode::kBadUsage, fmt::format("use NOTIFY_SOCKET '{}'", socket),
                fmt::format("it is neither a path nor an abstract name ('@...') of 2 to {} bytes", room),
                "Unset NOTIFY_SOCKET if no service manager is to be told.");
  }
  if (abstract) address_[0] = '\0';
}

ServiceManager ServiceManager::from_environment() {
  const std::string_view socket = environment("NOTIFY_SOCKET");
  return socket.empty() ? ServiceManager() : ServiceManager(socket);
}

void ServiceManager::tell(std::string_view state) const {
  if (address_.empty()) return;
  sockaddr_un to{};
  to.sun_family = AF_UNIX;
  std::ranges::copy(address_, to.sun_path);
  const auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + address_.size());
  const UniqueFd socket(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  // Not to wait: a manager that does not read must not stop the guest.
  if (!socket || ::sendto(socket.get(), state.data(), state.size(), MSG_NOSIGNAL | MSG_DONTWAIT,
                          reinterpret_cast<const sockaddr*>(&to), size) < 0) {
    spdlog::warn("the service manager could not be told '{}': {}", state.substr(0, state.find('\n')),
                 errno_text(errno));
  }
}

bool is_journal(int fd) {
  struct stat status {};
  if (::fstat(fd, &status) != 0) return false;
  return environment("JOURNAL_STREAM") == fmt::format("{}:{}", status.st_dev, status.st_ino);
}

}  // namespace sevisor::vmm
