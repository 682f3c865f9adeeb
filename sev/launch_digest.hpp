// The launch digest: what the Secure Processor hashes of a guest between LAUNCH_START and LAUNCH_MEASURE, computed
// here. AMD SEV API (55766) LAUNCH_UPDATE_DATA, LAUNCH_UPDATE_VMSA: SHA-256 over the contents in command order, no
// addresses.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "sev/initial_vmsa.hpp"
#include "sev/sha256.hpp"

namespace sevisor::sev {

struct LaunchContents {
  std::span<const std::byte> firmware;      // the whole image
  std::span<const std::byte> hashes_table;  // 176 bytes, or empty
  unsigned vcpus = 1;
  std::uint32_t cpu_signature = 0;     // CPUID Fn0000_0001_EAX
  std::uint32_t ap_reset_address = 0;  // of the footer table; not used with one vCPU
  VmsaForm vmsa_form = VmsaForm::kEsInit;
};

// Adds the pages of `vcpus` vCPUs, in the order in which KVM measures them.
void add_vmsas(Sha256& hash, const VmsaPages& pages, unsigned vcpus);

// Of a SEV-ES guest, set up as QEMU and sevisor do.
[[nodiscard]] Digest launch_digest(const LaunchContents& contents);

}  // namespace sevisor::sev
