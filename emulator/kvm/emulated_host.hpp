// The emulated SEV-ES host: answers KVM and SEV ioctls in process, as Linux on an EPYC machine does
// (docs/architecture.md). It protects nothing: whoever owns the process reads the guest. Reports carry "host":
// "emulated".
#pragma once

#include <cstdint>
#include <memory>

#include "emulator/kvm/personality.hpp"
#include "emulator/psp/platform_identity.hpp"
#include "kvm/host.hpp"
#include "kvm/observer.hpp"

namespace sevisor::emulator {

struct EmulatedHostOptions {
  std::uint64_t seed = 0;                 // all keys, nonces and RDRAND values follow from it
  unsigned c_bit = 51;                    // CPUID 0x8000001F EBX[5:0]; 32..51
  std::uint64_t tsc_per_instruction = 1;  // virtual nanoseconds that one retired instruction takes; at least 1
  std::uint64_t slice = 50'000;           // instructions that a vCPU runs before the next one has its turn; at least 1
  std::shared_ptr<const PlatformIdentity> identity = nullptr;  // null: a PDH from the seed, without certificates
  const Personality* personality = &newest_personality();      // which kernel's KVM it is
  bool watch_memory = false;          // the observer is told of guests' use of memory too, which makes them slow
  kvm::Observer* observer = nullptr;  // told what passes between guests, host and Secure Processor; outlives the host
};

// Descriptors start at 1 << 20, so that they cannot be taken for the operating system's. Each vCPU may be run by a
// thread of its own; the vCPUs of a VM take turns all the same. A kvm_run area lives until its vCPU's descriptor is
// closed and it is unmapped. The host must outlive the memory that the VMM gave to its guests, or the VMs be closed
// before that memory goes.
[[nodiscard]] std::unique_ptr<kvm::Host> make_emulated_host(const EmulatedHostOptions& options = {});

}  // namespace sevisor::emulator
