// What the program says about itself, on standard error.
#pragma once

#include <string_view>

namespace sevisor::cli {

// Lines of the form "sevisor: text", "sevisor: warning: text"; coloured on a terminal. Throws Error (kBadUsage) when
// there is no such level.
void set_up_log(std::string_view level);

inline constexpr const char* kLogLevels = "trace, debug, info, warning, error, off";

}  // namespace sevisor::cli
