#include "vmm/end/end_wait.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <fmt/format.h>
#include <poll.h>
#include <spdlog/spdlog.h>
#include <string>
#include <sys/signalfd.h>
#include <unistd.h>

namespace sevisor::vmm {

namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr int kSignalExitBase = 128;  // as shells report a death by signal
constexpr milliseconds kLongestWait{1'000'000};

double seconds(milliseconds time) { return static_cast<double>(time.count()) / 1000; }

// When there is nothing to wait for but an event: never.
int poll_timeout(std::optional<Clock::time_point> until) {
  if (!until) return -1;
  const auto left = std::chrono::ceil<milliseconds>(*until - Clock::now());
  return static_cast<int>(std::clamp(left, milliseconds(0), kLongestWait).count());
}

std::optional<Clock::time_point> earlier(std::optional<Clock::time_point> a, std::optional<Clock::time_point> b) {
  if (!a || !b) return a ? a : b;
  return std::min(*a, *b);
}

}  // namespace

EndSignals::EndSignals() {
  sigset_t set;
  ::sigemptyset(&set);
  for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGQUIT}) ::sigaddset(&set, signal);
  ::pthread_sigmask(SIG_BLOCK, &set, &before_);
  fd_ = UniqueFd(::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
}

EndSignals::~EndSignals() { ::pthread_sigmask(SIG_SETMASK, &before_, nullptr); }

int EndSignals::take() const noexcept {
  signalfd_siginfo info{};
  return ::read(fd_.get(), &info, sizeof info) == sizeof info ? static_cast<int>(info.ssi_signo) : 0;
}

void wait_for_end(RunState& state, const EndSignals& signals, const EndPolicy& policy,
                  const std::function<void()>& ask_power_off, const ServiceManager& manager) {
  std::optional<Clock::time_point> time_out;
  if (policy.timeout) time_out = Clock::now() + *policy.timeout;
  std::optional<Clock::time_point> ask_at;   // the next time that the guest is asked to power off
  std::optional<Clock::time_point> give_up;  // when it has been asked for long enough
  while (!state.ended()) {
    std::array<pollfd, 2> events = {pollfd{state.event_fd(), POLLIN, 0}, pollfd{signals.fd(), POLLIN, 0}};
    if (::poll(events.data(), events.size(), poll_timeout(earlier(time_out, earlier(ask_at, give_up)))) < 0 &&
        errno != EINTR) {
      state.end({ExitCode::kCrash, fmt::format("wait for the guest: {}", errno_text(errno))});
    }
    if (state.ended()) return;
    if (const int signal = signals.take(); signal != 0) {
      if (signal == SIGTERM && policy.power_off_time && !give_up) {
        ask_at = Clock::now();
        give_up = *ask_at + *policy.power_off_time;
        const std::string text = fmt::format("SIGTERM: the guest is asked to power off, and has {:g} s for it",
                                             seconds(*policy.power_off_time));
        spdlog::info("{}", text);
        manager.tell(fmt::format("STOPPING=1\nSTATUS={}", text));
      } else {
        state.end({kSignalExitBase + signal,
                   fmt::format("ended by {}SIG{}", give_up ? "a further signal, " : "", ::sigabbrev_np(signal))});
      }
      continue;
    }
    const Clock::time_point now = Clock::now();
    if (time_out && now >= *time_out) {
      state.end(
          {ExitCode::kTimedOut, fmt::format("the guest was still running after {:g} s", seconds(*policy.timeout))});
    } else if (give_up && now >= *give_up) {
      state.end({kSignalExitBase + SIGTERM,
                 fmt::format("the guest did not power off within {:g} s of SIGTERM", seconds(*policy.power_off_time))});
    } else if (ask_at && now >= *ask_at) {
      ask_power_off();
      ask_at = now + kAskAgain;
    }
  }
}

}  // namespace sevisor::vmm
