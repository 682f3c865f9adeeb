#include "vmm/text/pattern.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <fmt/format.h>
#include <re2/re2.h>
#include <utility>

#include "base/error.hpp"

namespace sevisor::vmm {

namespace {

// Bytes for the compiled pattern and its automaton. What is larger takes seconds a line where the automaton gives up.
constexpr std::int64_t kMaxMemory = 2 << 20;

struct Construct {
  std::string_view begin;
  std::string_view name;
};
// What other matchers have and this one cannot: the text would have to be looked at again and again.
constexpr Construct kConstructs[] = {
    {"(?=", "the look-ahead"},     {"(?!", "the look-ahead"},     {"(?<=", "the look-behind"},
    {"(?<!", "the look-behind"},   {"(?>", "the atomic group"},   {"(?|", "the branch reset"},
    {"(?(", "the condition"},      {"\\k", "the back reference"}, {"\\g", "the back reference"},
    {"\\1", "the back reference"}, {"\\2", "the back reference"}, {"\\3", "the back reference"},
    {"\\4", "the back reference"}, {"\\5", "the back reference"}, {"\\6", "the back reference"},
    {"\\7", "the back reference"}, {"\\8", "the back reference"}, {"\\9", "the back reference"},
};

// `error`: RE2's; its argument is the place in the text where it gave up.
std::string why_not(const std::string& text, const re2::RE2& regex) {
  const std::string& place = regex.error_arg();
  for (const Construct& construct : kConstructs) {
    // RE2 tells "(?<" of either look-behind.
    if (!place.starts_with(construct.begin) && !construct.begin.starts_with(place)) continue;
    if (place.size() < 2 || text.find(construct.begin) == std::string::npos) continue;
    return fmt::format("{} '{}' would have to go back in the text, and patterns are matched in one go", construct.name,
                       construct.begin);
  }
  return regex.error();
}

// Where a brace stands for itself though it looks like the beginning of a repetition, as in "a{2"; npos if nowhere. RE2
// would take it as it is, and other matchers refuse it.
std::size_t unfinished_repetition(std::string_view text) {
  bool in_class = false;
  for (std::size_t at = 0; at < text.size(); ++at) {
    if (text[at] == '\\') {
      ++at;
      const bool takes_braces =
          at + 1 < text.size() && text[at + 1] == '{' && (text[at] == 'x' || text[at] == 'p' || text[at] == 'P');
      if (takes_braces) at = std::min(text.find('}', at), text.size());
    } else if (in_class) {
      in_class = text[at] != ']';
    } else if (text[at] == '[') {
      in_class = true;
      if (at + 1 < text.size() && text[at + 1] == '^') ++at;
      if (at + 1 < text.size() && text[at + 1] == ']') ++at;  // stands for itself there
    } else if (text[at] == '{') {
      const std::size_t digits = text.find_first_not_of("0123456789", at + 1);
      std::size_t end = digits;
      if (end != std::string_view::npos && text[end] == ',') end = text.find_first_not_of("0123456789", end + 1);
      if (digits == at + 1 || end == std::string_view::npos || text[end] != '}') return at;
    }
  }
  return std::string_view::npos;
}

}  // namespace

Pattern::Pattern(std::string_view read, const std::string& text) {
  re2::RE2::Options options(re2::RE2::Latin1);  // the console is bytes
  options.set_log_errors(false);
  options.set_max_mem(kMaxMemory);
  auto regex = std::make_shared<const re2::RE2>(text, options);
  if (!regex->ok()) {
    throw Error(ExitCode::kBadUsage, fmt::format("read {} '{}'", read, text), why_not(text, *regex),
                "Give a regular expression of RE2's syntax; a backslash before a special character takes it as it is.");
  }
  if (const std::size_t brace = unfinished_repetition(text); brace != std::string::npos) {
    throw Error(ExitCode::kBadUsage, fmt::format("read {} '{}'", read, text),
                fmt::format("the brace at character {} begins no repetition", brace + 1),
                "Write \\{ for a brace, and {2}, {2,} or {2,5} for a repetition.");
  }
  regex_ = std::move(regex);
}

bool Pattern::found_in(std::string_view text) const {
  return regex_->Match({text.data(), text.size()}, 0, text.size(), re2::RE2::UNANCHORED, nullptr, 0);
}

}  // namespace sevisor::vmm
