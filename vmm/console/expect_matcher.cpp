#include "vmm/console/expect_matcher.hpp"

#include <fmt/format.h>
#include <string_view>

#include "base/error.hpp"

namespace sevisor::vmm {

namespace {

// Whether the pattern looks at what follows a match: the end of the text, or a word's.
bool looks_ahead(std::string_view pattern) {
  for (const std::string_view sign : {"$", "\\b", "\\B", "\\z"}) {
    if (pattern.find(sign) != std::string_view::npos) return true;
  }
  return false;
}

}  // namespace

ExpectMatcher::ExpectMatcher(const std::string& pattern)
    : pattern_("--expect", pattern), grows_(!looks_ahead(pattern)) {
  if (!pattern_.found_in("")) return;
  throw Error(ExitCode::kBadUsage, fmt::format("read --expect '{}'", pattern),
              pattern.empty() ? "it is empty, and matches anything" : "it matches the empty text, and so anything",
              "Give one that some text of the guest must match, as 'login:', or '.' for any at all.");
}

bool ExpectMatcher::matches(std::size_t length) const {
  return length != 0 && pattern_.found_in(std::string_view(line_).substr(0, length));
}

std::size_t ExpectMatcher::shortest_match(std::size_t known_not) const {
  std::size_t low = known_not;
  std::size_t high = line_.size();  // matches
  while (high - low > 1) {
    const std::size_t middle = low + (high - low) / 2;
    (matches(middle) ? high : low) = middle;
  }
  return high;
}

std::optional<std::size_t> ExpectMatcher::feed(std::span<const std::byte> output) {
  std::size_t at = 0;
  while (at < output.size()) {
    // Take a piece of one line, as long as may be looked at in one go.
    const std::size_t before = line_.size();
    const std::size_t begin = at;
    bool line_ends = false;
    while (at < output.size() && !line_ends && line_.size() < kMaxLine && (grows_ || line_.size() == before)) {
      const char c = std::to_integer<char>(output[at++]);
      if (c == '\n') {
        line_ends = true;
      } else if (c != '\r') {
        line_.push_back(c);
      }
    }
    if (line_.size() > before && matches(line_.size())) {
      std::size_t wanted = (grows_ ? shortest_match(before) : line_.size()) - before;
      std::size_t taken = begin;
      while (wanted > 0) wanted -= output[taken++] == std::byte{'\r'} ? 0 : 1;
      return taken;
    }
    if (line_ends) line_.clear();
    if (line_.size() == kMaxLine) line_.erase(0, kMaxLine / 2);
  }
  return std::nullopt;
}

}  // namespace sevisor::vmm
