#include "emulator/kvm/event_descriptor.hpp"

#include <cerrno>
#include <fcntl.h>
#include <fmt/format.h>
#include <fstream>
#include <limits>
#include <optional>
#include <poll.h>
#include <string>
#include <unistd.h>

namespace sevisor::emulator {

namespace {

bool ready(int fd, short events) {
  pollfd state{.fd = fd, .events = events, .revents = 0};
  return ::poll(&state, 1, 0) == 1 && (state.revents & events) != 0;
}

// Linux fs/eventfd.c eventfd_show_fdinfo(): a line that only an eventfd has.
std::optional<std::uint64_t> eventfd_id(int fd) {
  std::ifstream info(fmt::format("/proc/self/fdinfo/{}", fd));
  for (std::string name; info >> name;) {
    std::uint64_t value = 0;
    if (name == "eventfd-id:" && info >> value) return value;
    info.ignore(std::numeric_limits<std::streamsize>::max(), '\n');
  }
  return std::nullopt;
}

}  // namespace

int EventDescriptor::open(int fd) {
  UniqueFd own(::fcntl(fd, F_DUPFD_CLOEXEC, 0));
  if (!own) return -errno;
  const auto id = eventfd_id(own.get());
  if (!id) return -EINVAL;
  fd_ = std::move(own);
  id_ = *id;
  return 0;
}

void EventDescriptor::signal() const {
  const std::uint64_t one = 1;
  if (ready(fd_.get(), POLLOUT)) [[maybe_unused]]
    const auto written = ::write(fd_.get(), &one, sizeof one);
}

bool EventDescriptor::signalled() const { return ready(fd_.get(), POLLIN); }

bool EventDescriptor::take() const {
  std::uint64_t count = 0;
  return signalled() && ::read(fd_.get(), &count, sizeof count) == sizeof count;
}

}  // namespace sevisor::emulator
