// Keys typed on a raw terminal: most go to the guest, Ctrl-a starts a command to the VMM.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

namespace sevisor::vmm {

inline constexpr std::byte kEscapeKey{0x01};  // Ctrl-a

inline constexpr const char* kConsoleHelp =
    "Ctrl-a x       end the guest and leave\n"
    "Ctrl-a b       send a break (SysRq)\n"
    "Ctrl-a h       show this list\n"
    "Ctrl-a Ctrl-a  send Ctrl-a to the guest\n";

class ConsoleKeys {
 public:
  struct Decoded {
    std::vector<std::byte> input;  // for the guest, up to a break
    bool send_break = false;       // after `input`
    std::vector<std::byte> input_after_break;
    bool quit = false;
    bool help = false;
  };

  // Keeps a Ctrl-a at the end for the next call. After a quit the rest is dropped.
  [[nodiscard]] Decoded decode(std::span<const std::byte> typed);

 private:
  bool escaped_ = false;
};

}  // namespace sevisor::vmm
