// What an exit of KVM_RUN means: served here, or the end of the run. A plain function of the exit, testable without
// KVM. Linux Documentation/virt/kvm/api.rst section 5.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

#include "devices/bus.hpp"
#include "vmm/kvm/abi.hpp"
#include "vmm/outcome.hpp"

namespace sevisor::vmm {

struct Buses {
  const devices::Bus& ports;
  const devices::Bus& mmio;
};

// Whether a shutdown is a reset that the guest announced. PC software that resets by a shutdown (triple fault) first
// clears the shutdown status byte of CMOS, for the BIOS to see; Linux does so in machine_real_restart(), which it takes
// on a hardware-reduced machine without EFI. One per vCPU.
class ResetWatch {
 public:
  // A port access of this vCPU; `value`: the first byte written.
  void port_write(std::uint16_t port, std::uint8_t value) noexcept;
  void other_access() noexcept { announced_ = false; }
  // The last access that left the vCPU cleared the shutdown status.
  [[nodiscard]] bool announced() const noexcept { return announced_; }

 private:
  std::uint8_t cmos_index_ = 0;
  bool announced_ = false;
};

// Serves port and MMIO accesses on the buses; everything else that KVM_RUN returned 0 with ends the run, with a code
// that is never 0: a guest that powers off does so through a device. `run_size`: bytes of the run area, with its port
// data.
[[nodiscard]] std::optional<Outcome> handle_exit(kvm_run& run, std::size_t run_size, unsigned vcpu, const Buses& buses,
                                                 ResetWatch& watch);

// "reason set 0, code 1: the GHCB protocol version is not supported": GHCBData of a termination request (GHCB
// specification, AMD 56421, section 2.3.1), or the GHCB's address if the guest asked through its GHCB.
[[nodiscard]] std::string sev_termination_text(std::uint64_t data);

}  // namespace sevisor::vmm
