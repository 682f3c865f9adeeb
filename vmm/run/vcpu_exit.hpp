// What an exit of KVM_RUN means: served here, or the end of the run. A plain function of the exit, testable without
// KVM. Linux Documentation/virt/kvm/api.rst section 5.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

#include "devices/guest_dma.hpp"
#include "kvm/abi.hpp"
#include "vmm/end/outcome.hpp"
#include "vmm/machine/buses.hpp"

namespace sevisor::vmm {

// Serves port and MMIO accesses on the buses, and ends of interrupts; everything else that KVM_RUN returned 0 with ends
// the run, with a code that is never 0: a guest that powers off does so through a device. `run_size`: bytes of the run
// area, with its port data.
[[nodiscard]] std::optional<Outcome> handle_exit(kvm_run& run, std::size_t run_size, unsigned vcpu, const Buses& buses);

// "reason set 0, code 1: the GHCB protocol version is not supported": GHCBData of a termination request (GHCB
// specification, AMD 56421, section 2.3.1), or the GHCB's address if the guest asked through its GHCB (section 4.1.9 of
// version 2), which is then looked up in `memory`.
[[nodiscard]] std::string sev_termination_text(std::uint64_t data, devices::GuestDma* memory = nullptr);

// What KVM_RUN's failing with this errno means.
[[nodiscard]] std::string run_failure_text(int error_number);

}  // namespace sevisor::vmm
