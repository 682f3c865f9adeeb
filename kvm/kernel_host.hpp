// The Linux kernel of this machine as a host.
#pragma once

#include <memory>

#include "kvm/host.hpp"

namespace sevisor::kvm {

[[nodiscard]] std::unique_ptr<Host> make_kernel_host();

}  // namespace sevisor::kvm
