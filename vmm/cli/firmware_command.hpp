// `sevisor firmware`: reads a firmware image's tables aloud, and says what they mean for a SEV-ES guest.
#pragma once

#include "vmm/cli/command.hpp"

namespace sevisor::cli {

[[nodiscard]] Command add_firmware_command(CLI::App& app);

}  // namespace sevisor::cli
