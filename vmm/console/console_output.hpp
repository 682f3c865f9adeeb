// What the guest prints, on its way to standard output, by a thread of its own: a slow reader must not hold a device's
// lock.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "vmm/console/expect_matcher.hpp"
#include "vmm/end/run_state.hpp"

namespace sevisor::vmm {

class ConsoleOutput {
 public:
  // Bytes that wait to be written; the guest waits while there are more.
  static constexpr std::size_t kMaxPending = 1 << 20;

  // Writes to `fd`. Ends the run with 0 once `expect` (if any) matches, with an error when `fd` takes no more.
  // `filter` confines its thread.
  ConsoleOutput(int fd, std::optional<ExpectMatcher> expect, RunState& state, const ThreadFilter& filter = {});
  ~ConsoleOutput() { finish(); }
  ConsoleOutput(const ConsoleOutput&) = delete;
  ConsoleOutput& operator=(const ConsoleOutput&) = delete;

  // From any thread; returns at once unless kMaxPending is reached.
  void write(std::span<const std::byte> output);

  // The run has ended: lets a vCPU go that waits in write().
  void release();

  // Writes what is pending and ends the thread. If the run ended otherwise, what was still to be looked at may yet
  // match: matched() is final after this.
  void finish() noexcept;
  [[nodiscard]] bool matched() const noexcept { return matched_; }

 private:
  void write_all() noexcept;
  bool write_chunk(std::span<const std::byte> chunk);
  std::optional<std::size_t> look_for_match(std::span<const std::byte> chunk);

  int fd_;
  std::optional<ExpectMatcher> expect_;
  RunState& state_;
  std::mutex mutex_;  // guards pending_ and finishing_
  std::condition_variable changed_;
  std::vector<std::byte> pending_;
  bool finishing_ = false;
  std::byte last_{'\n'};                                                // byte written, of the thread
  std::optional<std::chrono::steady_clock::time_point> patience_ends_;  // of the thread, once the run has ended
  bool matched_ = false;                                                // of the thread, until it is joined
  std::thread thread_;
};

}  // namespace sevisor::vmm
