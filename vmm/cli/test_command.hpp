// `sevisor test`: boot tests, as CI runs them.
#pragma once

#include "vmm/cli/command.hpp"

namespace sevisor::cli {

Command add_test_command(CLI::App& app);

}  // namespace sevisor::cli
