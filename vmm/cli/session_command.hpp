// `sevisor session`: keys for one guest, wrapped for one platform.
#pragma once

#include "vmm/cli/command.hpp"

namespace sevisor::cli {

[[nodiscard]] Command add_session_command(CLI::App& app);

}  // namespace sevisor::cli
