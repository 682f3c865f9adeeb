// `sevisor doctor`: whether SEV-ES guests can run here, why not, and what to do.
#pragma once

#include "vmm/cli/command.hpp"

namespace sevisor::cli {

Command add_doctor_command(CLI::App& app);

}  // namespace sevisor::cli
