// `sevisor measure`: the launch digest of a guest, computed from its files. Options are sev-snp-measure's.
#pragma once

#include "vmm/cli/command.hpp"

namespace sevisor::cli {

[[nodiscard]] Command add_measure_command(CLI::App& app);

}  // namespace sevisor::cli
