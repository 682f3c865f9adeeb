// Checks of a host through its ioctls alone: they are the same for the kernel's and the emulated one.
#pragma once

#include "kvm/host.hpp"
#include "sev/firmware_image.hpp"
#include "vmm/doctor/check.hpp"
#include "vmm/doctor/machine.hpp"

namespace sevisor::doctor {

// /dev/kvm, its API and init commands, /dev/sev and the Secure Processor.
[[nodiscard]] Check check_host(kvm::Host& host, const Machine& machine);

// Launches a guest of 32 MiB with one vCPU, and ends it before its first instruction.
[[nodiscard]] Check check_launch(kvm::Host& host, const sev::FirmwareImage& firmware);

struct Examination {
  std::vector<Check> checks;
  bool can_run = false;
  std::string verdict;  // one line
};

// All checks that apply to the host: those of the machine only if it is the kernel's.
[[nodiscard]] Examination examine(kvm::Host& host, const Machine& machine, const sev::FirmwareImage& firmware);

}  // namespace sevisor::doctor
