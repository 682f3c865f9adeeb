// `sevisor secret`: packages secrets for one launch, as LAUNCH_SECRET takes them.
#pragma once

#include "vmm/cli/command.hpp"

namespace sevisor::cli {

[[nodiscard]] Command add_secret_command(CLI::App& app);

}  // namespace sevisor::cli
