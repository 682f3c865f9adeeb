// What the program says about itself, on standard error.
#pragma once

#include <string_view>

namespace sevisor::cli {

// Lines of the form "sevisor: text", "sevisor: warning: text"; coloured on a terminal. When standard error is a stream
// to systemd's journal, which notes name and time itself: "<6>text", "<4>text", with the priority of sd-daemon(3).
// Throws Error (kBadUsage) when there is no such level.
void set_up_log(std::string_view level);

// What stands before an error that ends the program, in the same form; usable before set_up_log().
[[nodiscard]] std::string_view error_prefix();

// Whether what goes to this descriptor may be coloured: a terminal, not TERM=dumb, and no NO_COLOR (no-color.org).
[[nodiscard]] bool may_colour(int fd);

inline constexpr const char* kLogLevels = "trace, debug, info, warning, error, off";

}  // namespace sevisor::cli
