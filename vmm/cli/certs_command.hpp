// `sevisor certs show|verify|export`: a platform's certificates.
#pragma once

#include "vmm/cli/command.hpp"

namespace sevisor::cli {

[[nodiscard]] Command add_certs_command(CLI::App& app);

}  // namespace sevisor::cli
