// The one fact that all threads of a run share: whether it has ended, and how.
#pragma once

#include <atomic>
#include <mutex>
#include <optional>

#include "base/unique_fd.hpp"
#include "vmm/end/outcome.hpp"
#include "vmm/end/thread_filter.hpp"

namespace sevisor::vmm {

class RunState {
 public:
  RunState();

  // Ends the run. The first outcome counts, later ones are dropped. From any thread.
  void end(Outcome outcome);

  // Confines the calling thread of the run; ends the run if that fails. Never throws.
  [[nodiscard]] bool confine(const ThreadFilter& filter) noexcept;

  [[nodiscard]] bool ended() const noexcept { return ended_.load(std::memory_order_acquire); }
  // Readable once the run has ended.
  [[nodiscard]] int event_fd() const noexcept { return event_.get(); }
  [[nodiscard]] std::optional<Outcome> outcome() const;

 private:
  std::atomic<bool> ended_ = false;
  UniqueFd event_;
  mutable std::mutex mutex_;  // guards outcome_
  std::optional<Outcome> outcome_;
};

}  // namespace sevisor::vmm
