#include "vmm/console/expect_matcher.hpp"

#include <fmt/format.h>

#include "base/error.hpp"

namespace sevisor::vmm {

namespace {

std::regex compile(const std::string& pattern) {
  try {
    return std::regex(pattern, std::regex::ECMAScript | std::regex::optimize);
  } catch (const std::regex_error& error) {
    throw Error(ExitCode::kBadUsage, fmt::format("read the regular expression '{}'", pattern), error.what(),
                "Correct --expect (ECMAScript syntax); a backslash before a special character takes it as it is.");
  }
}

// Whether the pattern looks at what follows a match: end of line, word boundaries, lookahead.
bool looks_ahead(const std::string& pattern) {
  for (const char* sign : {"$", "\\b", "\\B", "(?"}) {
    if (pattern.find(sign) != std::string::npos) return true;
  }
  return false;
}

}  // namespace

ExpectMatcher::ExpectMatcher(const std::string& pattern) : regex_(compile(pattern)), grows_(!looks_ahead(pattern)) {}

bool ExpectMatcher::matches(std::size_t length) const {
  return length != 0 && std::regex_search(line_.data(), line_.data() + length, regex_);
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
