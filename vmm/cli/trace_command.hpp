// `sevisor trace`: sums up what `sevisor run --trace` has written.
#pragma once

#include "vmm/cli/command.hpp"

namespace sevisor::cli {

[[nodiscard]] Command add_trace_command(CLI::App& app);

}  // namespace sevisor::cli
