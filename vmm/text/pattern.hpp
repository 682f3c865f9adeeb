// Regular expressions, matched in linear time: whatever the pattern and the text, time limits and signals hold.
#pragma once

#include <memory>
#include <string>
#include <string_view>

namespace re2 {
class RE2;
}

namespace sevisor::vmm {

class Pattern {
 public:
  // RE2's syntax, bytes being characters. Throws Error (kBadUsage) when the text is none, and names a construct that
  // needs backtracking (look-around, back references). `read`: for messages, as in "--filter".
  Pattern(std::string_view read, const std::string& text);

  // Whether it matches a part of the text.
  [[nodiscard]] bool found_in(std::string_view text) const;

 private:
  std::shared_ptr<const re2::RE2> regex_;
};

}  // namespace sevisor::vmm
