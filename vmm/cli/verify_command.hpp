// `sevisor verify`: whether a measurement is of the guest its owner asked for. Options are virt-qemu-sev-validate's.
#pragma once

#include "vmm/cli/command.hpp"

namespace sevisor::cli {

[[nodiscard]] Command add_verify_command(CLI::App& app);

}  // namespace sevisor::cli
