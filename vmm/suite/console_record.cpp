#include "vmm/suite/console_record.hpp"

namespace sevisor::suite {

void ConsoleRecord::add(std::span<const std::byte> output) {
  for (const std::byte byte : output) {
    const char c = std::to_integer<char>(byte);
    if (escape_ == Escape::kStarted) {  // ESC [ ... letter (ECMA-48 section 5.4), or ESC and one more
      escape_ = c == '[' ? Escape::kSequence : Escape::kNone;
    } else if (escape_ == Escape::kSequence) {
      if (c >= 0x40 && c <= 0x7e) escape_ = Escape::kNone;
    } else if (c == 0x1b) {
      escape_ = Escape::kStarted;
    } else if (c == '\n') {
      lines_.emplace_back();
      if (lines_.size() > kKeptLines) {
        lines_.pop_front();
        ++first_;
      }
    } else if (lines_.back().size() < kMaxLine && static_cast<unsigned char>(c) < 0x80 && (c >= 0x20 || c == '\t') &&
               c != 0x7f) {
      lines_.back().push_back(c);
    }
  }
}

std::optional<std::string> ConsoleRecord::line(std::size_t number) const {
  if (number < first_ || number - first_ >= lines_.size()) return std::nullopt;
  return lines_[number - first_];
}

std::vector<std::string> ConsoleRecord::last(std::size_t count) const {
  std::vector<std::string> result;
  for (auto line = lines_.rbegin(); line != lines_.rend() && result.size() < count; ++line) {
    if (!line->empty()) result.insert(result.begin(), *line);
  }
  return result;
}

}  // namespace sevisor::suite
