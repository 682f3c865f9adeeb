#include "vmm/end/run_state.hpp"

#include <cerrno>
#include <cstdint>
#include <sys/eventfd.h>
#include <unistd.h>

namespace sevisor::vmm {

RunState::RunState() : event_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  if (!event_) throw Error(ExitCode::kBadUsage, "make an eventfd", errno_text(errno), "Raise ulimit -n.");
}

void RunState::end(Outcome outcome) {
  {
    const std::lock_guard lock(mutex_);
    if (outcome_) return;
    outcome_ = std::move(outcome);
  }
  ended_.store(true, std::memory_order_release);
  const std::uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = ::write(event_.get(), &one, sizeof one);
}

bool RunState::confine(const ThreadFilter& filter) noexcept {
  try {
    filter.confine_this_thread();
    return true;
  } catch (const Error& error) {
    end({error.exit_code(), error.what()});
    return false;
  }
}

std::optional<Outcome> RunState::outcome() const {
  const std::lock_guard lock(mutex_);
  return outcome_;
}

}  // namespace sevisor::vmm
