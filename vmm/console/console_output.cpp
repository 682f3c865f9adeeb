#include "vmm/console/console_output.hpp"

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <exception>
#include <fmt/format.h>
#include <poll.h>
#include <pthread.h>
#include <sys/stat.h>
#include <unistd.h>
#include <utility>

namespace sevisor::vmm {

namespace {

// How long a reader that takes nothing, or a pattern, may hold up the end of a run.
constexpr int kFinalPatienceMs = 2000;
// Bytes: a costly pattern on a long line takes up to a tenth of a second each.
constexpr std::size_t kLookAtOnce = 16;

bool same_file(int a, int b) {
  struct stat of_a {};
  struct stat of_b {};
  return ::fstat(a, &of_a) == 0 && ::fstat(b, &of_b) == 0 && of_a.st_dev == of_b.st_dev && of_a.st_ino == of_b.st_ino;
}

}  // namespace

ConsoleOutput::ConsoleOutput(int fd, std::optional<ExpectMatcher> expect, RunState& state, const ThreadFilter& filter)
    : fd_(fd), expect_(std::move(expect)), state_(state), thread_([this, filter] {
        ::pthread_setname_np(::pthread_self(), "console-out");
        if (state_.confine(filter)) write_all();
      }) {}

void ConsoleOutput::write(std::span<const std::byte> output) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return pending_.size() < kMaxPending || finishing_ || state_.ended(); });
  pending_.insert(pending_.end(), output.begin(), output.end());
  changed_.notify_all();
}

void ConsoleOutput::release() {
  const std::lock_guard lock(mutex_);
  changed_.notify_all();
}

void ConsoleOutput::finish() noexcept {
  {
    const std::lock_guard lock(mutex_);
    finishing_ = true;
    changed_.notify_all();
  }
  if (thread_.joinable()) thread_.join();
}

bool ConsoleOutput::write_chunk(std::span<const std::byte> chunk) {
  while (!chunk.empty()) {
    // The descriptor may be non-blocking, or its reader asleep; after the end of the run it is not waited for long.
    pollfd waiting{fd_, POLLOUT, 0};
    const int ready = ::poll(&waiting, 1, kFinalPatienceMs);
    if (ready == 0 && state_.ended()) return false;
    if (ready <= 0) continue;
    // A pipe that is ready takes at least PIPE_BUF bytes without blocking.
    const ssize_t written = ::write(fd_, chunk.data(), std::min<std::size_t>(chunk.size(), 4096));
    if (written >= 0) {
      chunk = chunk.subspan(static_cast<std::size_t>(written));
    } else if (errno == EPIPE) {  // as in `| head -1`: what the signal would have done, with an orderly end
      constexpr int kSignalExitBase = 128;
      state_.end({kSignalExitBase + SIGPIPE, "the reader of standard output went away (SIGPIPE)"});
      return false;
    } else if (errno != EINTR && errno != EAGAIN) {
      state_.end({ExitCode::kBadUsage, fmt::format("write the console to standard output: {}", errno_text(errno))});
      return false;
    }
  }
  return true;
}

// In pieces, so that a costly pattern and much output do not hold up the end of a run either.
std::optional<std::size_t> ConsoleOutput::look_for_match(std::span<const std::byte> chunk) {
  for (std::size_t at = 0; at < chunk.size(); at += kLookAtOnce) {
    if (state_.ended()) {
      const auto now = std::chrono::steady_clock::now();
      if (!patience_ends_) patience_ends_ = now + std::chrono::milliseconds(kFinalPatienceMs);
      if (now > *patience_ends_) return std::nullopt;
    }
    const auto piece = chunk.subspan(at, std::min(kLookAtOnce, chunk.size() - at));
    if (const auto length = expect_->feed(piece)) return at + *length;
  }
  return std::nullopt;
}

void ConsoleOutput::write_all() noexcept {
  try {
    bool writable = true;
    std::vector<std::byte> chunk;
    for (;;) {
      {
        std::unique_lock lock(mutex_);
        changed_.wait(lock, [this] { return finishing_ || !pending_.empty(); });
        if (pending_.empty()) break;
        chunk.clear();
        chunk.swap(pending_);
        changed_.notify_all();
      }
      if (matched_) continue;  // what comes after the match is dropped, so that the same run prints the same
      std::span<const std::byte> shown = chunk;
      if (const auto length = expect_ ? look_for_match(chunk) : std::nullopt) {
        matched_ = true;
        shown = shown.first(*length);
      }
      writable = writable && write_chunk(shown);
      if (!shown.empty()) last_ = shown.back();
      if (matched_) state_.end({ExitCode::kPoweredOff, "the console matched --expect"});
    }
    // What the program or the shell says next shall not stand behind an unfinished line.
    if (writable && last_ != std::byte{'\n'} && (::isatty(fd_) != 0 || same_file(fd_, STDERR_FILENO))) {
      static constexpr std::byte kNewline{'\n'};
      write_chunk({&kNewline, 1});
    }
  } catch (const std::exception& error) {
    state_.end({ExitCode::kCrash, fmt::format("the console's thread: {}", error.what())});
  }
}

}  // namespace sevisor::vmm
