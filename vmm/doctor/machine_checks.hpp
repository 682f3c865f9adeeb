// Checks of what the kernel's host needs: processor, BIOS, kernel modules, limits. None needs root.
#pragma once

#include "vmm/doctor/check.hpp"
#include "vmm/doctor/machine.hpp"

namespace sevisor::doctor {

// CPUID, by the instruction, and what /proc/cpuinfo has of it. AMD APM vol. 3 appendix E, Fn8000_001F.
[[nodiscard]] Check check_processor(const Machine& machine);

// kvm_amd and ccp with their parameters. Linux Documentation/admin-guide/kernel-parameters.txt.
[[nodiscard]] Check check_kernel(const Machine& machine);

// Locked memory and huge pages.
[[nodiscard]] Check check_memory(const Machine& machine);

// Whether CPUID says that AMD made the processor.
[[nodiscard]] bool is_amd(const Machine& machine);

// Whether it says that the processor, or what a hypervisor shows of it, has SEV.
[[nodiscard]] bool has_sev(const Machine& machine);

// "EPYC Milan"; empty if it is none that is known.
[[nodiscard]] std::string processor_generation(std::uint32_t signature);

}  // namespace sevisor::doctor
