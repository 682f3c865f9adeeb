// The lines that a guest printed, for people: without escape sequences and control characters.
#pragma once

#include <cstddef>
#include <deque>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace sevisor::suite {

class ConsoleRecord {
 public:
  static constexpr std::size_t kKeptLines = 200;
  static constexpr std::size_t kMaxLine = 400;  // characters; the rest of a line is dropped

  void add(std::span<const std::byte> output);

  // Number of the line that is being printed, from 0.
  [[nodiscard]] std::size_t line_number() const noexcept { return first_ + lines_.size() - 1; }
  // Nothing if it is no longer kept, or not yet printed.
  [[nodiscard]] std::optional<std::string> line(std::size_t number) const;
  // The last `count` lines that are not empty.
  [[nodiscard]] std::vector<std::string> last(std::size_t count) const;

 private:
  enum class Escape { kNone, kStarted, kSequence };

  std::deque<std::string> lines_ = {{}};
  std::size_t first_ = 0;  // number of lines_.front()
  Escape escape_ = Escape::kNone;
};

}  // namespace sevisor::suite
