#include "vmm/console/console_input.hpp"

#include <array>
#include <cerrno>
#include <cstdio>
#include <exception>
#include <fmt/format.h>
#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include <vector>

namespace sevisor::vmm {

ConsoleInput::ConsoleInput(int fd, bool keys, SerialInput& serial, RunState& state, const ThreadFilter& filter)
    : serial_(serial), state_(state), stop_(::eventfd(0, EFD_CLOEXEC)) {
  if (!stop_) throw Error(ExitCode::kBadUsage, "make an eventfd", errno_text(errno), "Raise ulimit -n.");
  thread_ = std::thread([this, fd, keys, filter] {
    ::pthread_setname_np(::pthread_self(), "console-in");
    if (state_.confine(filter)) read_all(fd, keys);
  });
}

ConsoleInput::~ConsoleInput() {
  const std::uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = ::write(stop_.get(), &one, sizeof one);
  serial_.close();
  thread_.join();
}

void ConsoleInput::read_all(int fd, bool keys) noexcept {
  try {
    std::array<std::byte, 4096> typed{};
    for (;;) {
      std::array<pollfd, 2> ready = {pollfd{fd, POLLIN, 0}, pollfd{stop_.get(), POLLIN, 0}};
      if (::poll(ready.data(), ready.size(), -1) < 0) {
        if (errno == EINTR) continue;
        return;
      }
      if (ready[1].revents != 0 || (ready[0].revents & POLLNVAL) != 0) return;
      if (ready[0].revents == 0) continue;
      const ssize_t got = ::read(fd, typed.data(), typed.size());
      if (got < 0 && (errno == EINTR || errno == EAGAIN)) continue;
      if (got <= 0) return;
      if (!take(std::span(typed).first(static_cast<std::size_t>(got)), keys)) return;
    }
  } catch (const std::exception& error) {
    state_.end({ExitCode::kCrash, fmt::format("the console's thread: {}", error.what())});
  }
}

bool ConsoleInput::take(std::span<const std::byte> typed, bool keys) {
  if (!keys) return serial_.send(typed);
  const ConsoleKeys::Decoded decoded = keys_.decode(typed);
  if (!serial_.send(decoded.input)) return false;
  if (decoded.send_break) serial_.send_break();
  if (!serial_.send(decoded.input_after_break)) return false;
  if (decoded.help) fmt::print(stderr, "\n{}", kConsoleHelp);
  if (decoded.quit) {
    state_.end({ExitCode::kPoweredOff, "ended from the console (Ctrl-a x)"});
    return false;
  }
  return true;
}

}  // namespace sevisor::vmm
