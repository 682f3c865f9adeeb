#include "emulator/kvm/scheduler.hpp"

#include <algorithm>
#include <cerrno>
#include <stdexcept>
#include <sys/eventfd.h>
#include <unistd.h>

namespace sevisor::emulator {

namespace {
// How often a thread that waits looks at immediate_exit, which another thread may set without a signal.
constexpr std::chrono::milliseconds kLookAround{50};
}  // namespace

Scheduler::~Scheduler() {
  for (const Seat& seat : seats_) ::close(seat.event);
}

std::size_t Scheduler::add(Turn& turn) {
  const int event = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (event < 0) throw std::runtime_error("no descriptor left for a vCPU's event");
  seats_.push_back({.turn = &turn, .event = event});
  return seats_.size() - 1;
}

void Scheduler::signal(Seat& seat) {
  const std::uint64_t one = 1;
  [[maybe_unused]] const auto written = ::write(seat.event, &one, sizeof one);
}

bool Scheduler::busy() const {
  return std::any_of(seats_.begin(), seats_.end(), [](const Seat& seat) { return seat.inside; });
}

void Scheduler::wake() {
  if (runner_ && idle_) signal(seats_[*runner_]);
}

bool Scheduler::wait(std::size_t self, const SignalGate& signals, std::chrono::milliseconds most) {
  const timespec timeout{.tv_sec = 0, .tv_nsec = std::chrono::nanoseconds(most).count()};
  const int event = seats_[self].event;
  lock_.unlock();
  const bool interrupted = signals.wait(event, timeout);
  std::uint64_t count = 0;
  [[maybe_unused]] const auto taken = ::read(event, &count, sizeof count);
  lock_.lock();
  return interrupted;
}

void Scheduler::pass_on() {
  if (runner_) return;
  for (Seat& seat : seats_) {
    if (present(seat)) {
      signal(seat);
      return;
    }
  }
}

std::optional<std::size_t> Scheduler::next() {
  for (std::size_t i = 0; i < seats_.size(); ++i) {
    const std::size_t index = (turn_ + i) % seats_.size();
    Seat& seat = seats_[index];
    if ((present(seat) || !seat.absent) && seat.turn->wants_turn()) return index;
  }
  return std::nullopt;
}

int Scheduler::run(std::size_t self, const SignalGate& signals) {
  Seat& seat = seats_[self];
  seat.inside = true;
  seat.absent = false;
  seat.result.reset();
  wake();
  bool interrupted = false;
  const auto entered = std::chrono::steady_clock::now();
  while (!seat.result) {
    if (interrupted || seat.turn->exit_wanted()) {
      seat.turn->interrupted();
      seat.result = -EINTR;
      seat.absent = true;
      break;
    }
    if (!runner_) {
      const auto candidate = next();
      if (!candidate || present(seats_[*candidate])) {
        interrupted = drive(self, signals);
        continue;
      }
      // It is the turn of a vCPU in user space.
      if (std::chrono::steady_clock::now() - std::max(entered, waited_for_since_) > kPatience) {
        seats_[*candidate].absent = true;
        continue;
      }
    }
    interrupted = wait(self, signals, kLookAround);
  }
  seat.inside = false;
  // After an exit to user space the turn stays with this vCPU, and nobody else need look.
  if (seat.absent) {
    pass_on();
  } else {
    waited_for_since_ = std::chrono::steady_clock::now();
  }
  return *seat.result;
}

bool Scheduler::idle(std::size_t self, const SignalGate& signals) {
  const bool someone_outside =
      std::any_of(seats_.begin(), seats_.end(), [](Seat& s) { return !present(s) && s.turn->wants_turn(); });
  const bool timer_matters =
      std::any_of(seats_.begin(), seats_.end(), [](Seat& s) { return present(s) && s.turn->timer_can_wake(); });
  auto most = kLookAround;
  // Time does not jump while a vCPU that could run is in user space.
  if (timer_matters && !someone_outside) {
    if (const auto ahead = clock_.time_to_next_event()) {
      const auto now = std::chrono::steady_clock::now();
      credit_ = std::min(kFreeIdle, credit_ + std::min(kFreeIdle, (now - credited_) * kIdleSpeed));
      credited_ = now;
      const auto cost = std::min(*ahead, kFreeIdle);
      if (cost <= credit_) {
        credit_ -= cost;
        clock_.skip_to_next_event();
        return false;
      }
      const auto delay = std::chrono::ceil<std::chrono::milliseconds>((cost - credit_) / kIdleSpeed);
      most = std::min(most, delay);
    }
  }
  idle_ = true;
  const bool interrupted = wait(self, signals, most);
  idle_ = false;
  return interrupted;
}

bool Scheduler::drive(std::size_t self, const SignalGate& signals) {
  runner_ = self;
  const auto resign = [this](bool interrupted) {
    runner_.reset();
    return interrupted;
  };
  while (true) {
    lock_.let_others_in();
    if (seats_[self].turn->exit_wanted() || signals.pending()) return resign(true);
    for (Seat& seat : seats_) {
      if (present(seat) && seat.turn->exit_wanted()) signal(seat);  // its own thread leaves
    }
    const auto index = next();
    if (!index) {
      if (idle(self, signals)) return resign(true);
      continue;
    }
    turn_ = *index;
    Seat& seat = seats_[*index];
    if (!present(seat)) {  // its thread will be the runner when it comes back
      waited_for_since_ = std::chrono::steady_clock::now();
      return resign(false);
    }
    seat.result = seat.turn->slice();
    if (seat.result) {
      waited_for_since_ = std::chrono::steady_clock::now();  // also while its thread is still on its way out
      seat.absent = !seat.turn->comes_back();
      if (*index != self) signal(seat);
      return resign(false);
    }
    turn_ = (*index + 1) % seats_.size();
  }
}

}  // namespace sevisor::emulator
