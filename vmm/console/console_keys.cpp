#include "vmm/console/console_keys.hpp"

namespace sevisor::vmm {

ConsoleKeys::Decoded ConsoleKeys::decode(std::span<const std::byte> typed) {
  Decoded decoded;
  const auto pass_on = [&decoded](std::byte key) {
    (decoded.send_break ? decoded.input_after_break : decoded.input).push_back(key);
  };
  for (const std::byte key : typed) {
    if (!escaped_) {
      if (key == kEscapeKey) {
        escaped_ = true;
      } else {
        pass_on(key);
      }
      continue;
    }
    escaped_ = false;
    switch (std::to_integer<char>(key)) {
      case 'x':
      case 'X':
        decoded.quit = true;
        return decoded;
      case 'h':
      case 'H':
      case '?':
        decoded.help = true;
        break;
      case 'b':
      case 'B':
        decoded.send_break = true;
        break;
      default:
        if (key == kEscapeKey) pass_on(key);  // others mean nothing and go nowhere
        break;
    }
  }
  return decoded;
}

}  // namespace sevisor::vmm
