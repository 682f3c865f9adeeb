// Waits for the end of a run, and ends it when that is asked for from outside.
#pragma once

#include <chrono>
#include <csignal>
#include <functional>
#include <optional>

#include "base/unique_fd.hpp"
#include "vmm/end/run_state.hpp"
#include "vmm/end/service_manager.hpp"

namespace sevisor::vmm {

// Signals that ask a program to end, read from a descriptor instead of breaking in; all threads made meanwhile inherit
// the mask.
class EndSignals {
 public:
  EndSignals();
  ~EndSignals();
  EndSignals(const EndSignals&) = delete;
  EndSignals& operator=(const EndSignals&) = delete;

  [[nodiscard]] int fd() const noexcept { return fd_.get(); }
  // The signal that came, 0 if none.
  [[nodiscard]] int take() const noexcept;

 private:
  sigset_t before_{};
  UniqueFd fd_;
};

// How often a guest that is asked to power off is asked: one that is still coming up does not hear the first time.
inline constexpr std::chrono::seconds kAskAgain{5};

struct EndPolicy {
  std::optional<std::chrono::milliseconds> timeout;  // of the whole run
  // SIGTERM asks the guest to power off, and ends the run if it has not done so after this time; nullopt: it ends the
  // run at once, as the other signals do and any second one.
  std::optional<std::chrono::milliseconds> power_off_time;
};

// Returns when the run has ended, with the exit code 128 + its number if a signal ended it. `ask_power_off` is called
// in this thread; `manager` is told when it is.
void wait_for_end(RunState& state, const EndSignals& signals, const EndPolicy& policy,
                  const std::function<void()>& ask_power_off, const ServiceManager& manager);

}  // namespace sevisor::vmm
