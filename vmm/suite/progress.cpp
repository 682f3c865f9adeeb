#include "vmm/suite/progress.hpp"

#include <fmt/format.h>
#include <sys/ioctl.h>

namespace sevisor::suite {

namespace {

constexpr std::size_t kDefaultWidth = 80;

std::size_t width_of(std::FILE* out) {
  winsize size{};
  return ::ioctl(::fileno(out), TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : kDefaultWidth;
}

const char* colour_of(Verdict verdict) {
  switch (verdict) {
    case Verdict::kPassed:
      return "\x1b[32m";
    case Verdict::kFailed:
    case Verdict::kError:
      return "\x1b[31m";
    case Verdict::kStopped:
      return "\x1b[33m";
  }
  return "";
}

const char* label_of(Verdict verdict) {
  switch (verdict) {
    case Verdict::kPassed:
      return "PASS";
    case Verdict::kFailed:
      return "FAIL";
    case Verdict::kError:
      return "ERROR";
    case Verdict::kStopped:
      return "STOPPED";
  }
  return "";
}

}  // namespace

std::string failure_text(const CaseResult& result) {
  if (result.verdict == Verdict::kPassed || result.verdict == Verdict::kStopped) return {};
  std::string text = fmt::format("  {}\n", result.summary);
  for (const std::string& detail : result.details) text += fmt::format("  {}\n", detail);
  if (!result.last_lines.empty()) {
    text += "  the last lines of the console:\n";
    for (const std::string& line : result.last_lines) text += fmt::format("    | {}\n", line);
  }
  if (!result.log.empty()) text += fmt::format("  log: {}\n", result.log);
  if (!result.command.empty()) text += fmt::format("  by hand: {}\n", result.command);
  return text;
}

void Progress::started(std::size_t id, std::string title) {
  const std::lock_guard lock(mutex_);
  running_[id] = {std::move(title), {}, std::chrono::steady_clock::now()};
  draw();
}

void Progress::doing(std::size_t id, std::string what) {
  const std::lock_guard lock(mutex_);
  running_[id].what = std::move(what);
  draw();
}

void Progress::finished(std::size_t id, const CaseResult& result) {
  const std::lock_guard lock(mutex_);
  erase();
  const std::string title = running_[id].title;
  running_.erase(id);
  ++done_;
  print(fmt::format("{}{}{} [{}/{}] {} ({:.1f} s)\n{}", colour_ ? colour_of(result.verdict) : "",
                    label_of(result.verdict), colour_ ? "\x1b[0m" : "", done_, total_, title, result.seconds,
                    failure_text(result)));
  (void)std::fflush(out_);
  draw();
}

void Progress::tick() {
  const std::lock_guard lock(mutex_);
  draw();
}

void Progress::finish() {
  const std::lock_guard lock(mutex_);
  erase();
  live_ = false;
}

// Of what is lost the program learns at its end, by ferror(3): a thread of a case is no place to throw.
void Progress::print(const std::string& text) const { (void)std::fwrite(text.data(), 1, text.size(), out_); }

void Progress::erase() {
  if (drawn_ > 0) print(fmt::format("\x1b[{}A\r\x1b[J", drawn_));
  drawn_ = 0;
}

void Progress::draw() {
  if (!live_) return;
  erase();
  const std::size_t width = width_of(out_);
  const auto now = std::chrono::steady_clock::now();
  for (const auto& [id, run] : running_) {
    const double seconds = std::chrono::duration<double>(now - run.start).count();
    const std::string line =
        fmt::format("  ... {} {:.0f} s{}{}", run.title, seconds, run.what.empty() ? "" : ", ", run.what);
    print(line.substr(0, width - 1) + '\n');
    ++drawn_;
  }
  (void)std::fflush(out_);
}

}  // namespace sevisor::suite
