// Watches the guest's console for a line that matches a regular expression.
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <string>

#include "vmm/text/pattern.hpp"

namespace sevisor::vmm {

// The verdict depends on the console's bytes alone, not on the pieces in which they come: a line is looked at after
// each of its bytes, so that an unfinished one (a prompt) matches too.
class ExpectMatcher {
 public:
  // Longest part of a line that is kept; of a longer line the oldest half is dropped.
  static constexpr std::size_t kMaxLine = 4096;

  // It may match anywhere in a line. Throws Error (kBadUsage) when it is no regular expression (vmm/text/pattern.hpp),
  // and when it matches the empty text: that would match whatever the guest prints.
  explicit ExpectMatcher(const std::string& pattern);

  // How many of these bytes it takes for a match; nullopt without one. Carriage returns are not part of a line.
  [[nodiscard]] std::optional<std::size_t> feed(std::span<const std::byte> output);

 private:
  [[nodiscard]] bool matches(std::size_t length) const;  // the line's first `length` bytes
  [[nodiscard]] std::size_t shortest_match(std::size_t known_not) const;

  Pattern pattern_;
  bool grows_;  // once a part of a line matches, all longer parts do: looking at the whole is enough
  std::string line_;
};

}  // namespace sevisor::vmm
