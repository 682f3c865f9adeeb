// Lets the vCPUs of a VM take turns, in the order of their indices, one slice each. One thread inside KVM_RUN does the
// work for all: the runner. It runs the slices of every vCPU whose thread is inside KVM_RUN too, and hands the role on
// when a vCPU has to go to user space, to that vCPU's thread. A vCPU that is in user space and could run keeps its
// turn: the others wait for it, so that the same inputs give the same run. When it stays away longer than kPatience, or
// left because of a signal, they go on without it.
#pragma once

#include <chrono>
#include <cstddef>
#include <deque>
#include <optional>

#include "emulator/kvm/machine_lock.hpp"
#include "emulator/kvm/signal_gate.hpp"

namespace sevisor::emulator {

// What the scheduler needs of a vCPU. All calls are made with the machine locked.
class Turn {
 public:
  virtual ~Turn() = default;
  // It would run, given the turn: it is runnable, or an event that ends its wait is there.
  [[nodiscard]] virtual bool wants_turn() = 0;
  // It waits, and a timer could end that.
  [[nodiscard]] virtual bool timer_can_wake() = 0;
  // Runs one slice, or the rest of one that an exit to user space broke off. The result of KVM_RUN when the vCPU has to
  // go to user space; nothing when the turn goes on.
  virtual std::optional<int> slice() = 0;
  // The last exit was one that user space answers and then runs the vCPU again: the others wait for that.
  [[nodiscard]] virtual bool comes_back() const = 0;
  // kvm_run.immediate_exit
  [[nodiscard]] virtual bool exit_wanted() const = 0;
  // KVM_RUN leaves because of a signal.
  virtual void interrupted() = 0;
};

// Virtual time, as far as waiting goes.
class IdleClock {
 public:
  virtual ~IdleClock() = default;
  // How long until the next timer event; nothing: there is none.
  [[nodiscard]] virtual std::optional<std::chrono::nanoseconds> time_to_next_event() = 0;
  virtual void skip_to_next_event() = 0;
};

class Scheduler {
 public:
  static constexpr std::chrono::milliseconds kPatience{2000};
  // Idle time is jumped over at once, up to kFreeIdle of it; beyond, and on the whole, it passes kIdleSpeed times as
  // fast as wall time. So a boot never waits, and a guest that idles at its prompt leaves the machine's processors
  // alone. What the guest sees is the same either way.
  static constexpr std::chrono::nanoseconds kFreeIdle = std::chrono::seconds(20);
  static constexpr int kIdleSpeed = 10;

  Scheduler(MachineLock& lock, IdleClock& clock) : lock_(lock), clock_(clock) {}
  ~Scheduler();
  Scheduler(const Scheduler&) = delete;
  Scheduler& operator=(const Scheduler&) = delete;

  // Takes part with index = number of those before it. `turn` must live until the scheduler does not.
  std::size_t add(Turn& turn);
  // KVM_RUN of this vCPU, with the machine locked; it is unlocked while waiting. Returns KVM_RUN's result.
  int run(std::size_t index, const SignalGate& signals);
  // Some thread is inside run().
  [[nodiscard]] bool busy() const;
  // Some thread does the work for all: vCPUs run, or all of them wait.
  [[nodiscard]] bool running() const noexcept { return runner_.has_value(); }
  // Something outside has changed: an interrupt line, say. With the machine locked.
  void wake();

 private:
  struct Seat {
    Turn* turn = nullptr;
    int event = -1;                  // eventfd that wakes its thread
    bool inside = false;             // its thread is in KVM_RUN
    bool absent = false;             // nobody waits for it until it is inside again
    std::optional<int> result = {};  // KVM_RUN is to return
  };

  // Runs slices until this thread's own vCPU has to leave, or another one's thread has to become the runner. true:
  // leave KVM_RUN with EINTR.
  bool drive(std::size_t self, const SignalGate& signals);
  [[nodiscard]] static bool present(const Seat& seat) { return seat.inside && !seat.result; }
  // Waits with the machine unlocked, until woken, for a signal (true) or for `most`.
  bool wait(std::size_t self, const SignalGate& signals, std::chrono::milliseconds most);
  // No vCPU can run. true: a signal came.
  bool idle(std::size_t self, const SignalGate& signals);
  void signal(Seat& seat);
  // Another thread that is inside becomes the runner.
  void pass_on();
  // The next vCPU from turn_ on that wants the turn and is not absent.
  [[nodiscard]] std::optional<std::size_t> next();

  MachineLock& lock_;
  IdleClock& clock_;
  std::deque<Seat> seats_;
  std::optional<std::size_t> runner_;
  bool idle_ = false;                            // the runner waits for something to happen
  std::chrono::nanoseconds credit_ = kFreeIdle;  // idle time that may be jumped over now
  std::chrono::steady_clock::time_point credited_ = std::chrono::steady_clock::now();
  std::size_t turn_ = 0;
  std::chrono::steady_clock::time_point waited_for_since_;  // when the turn last went to a vCPU in user space
};

}  // namespace sevisor::emulator
