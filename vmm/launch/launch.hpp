// Launches an SEV-ES guest, in the order that the kernel and the Secure Processor demand.
// Linux Documentation/virt/kvm/x86/amd-memory-encryption.rst; AMD SEV API (55766) chapter 6.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/mapping.hpp"
#include "kvm/handles.hpp"
#include "sev/firmware_image.hpp"
#include "sev/hashes_table.hpp"
#include "sev/launch_secret.hpp"
#include "sev/measurement.hpp"
#include "sev/sha256.hpp"
#include "vmm/machine/cpu_model.hpp"
#include "vmm/machine/guest_ram.hpp"

namespace sevisor::vmm {

// Which KVM call makes the guest an SEV-ES one. The launch digest depends on it.
enum class InitApi : std::uint8_t {
  kEsInit,  // KVM_SEV_ES_INIT, which every kernel with SEV-ES has
  kInit2,   // KVM_SEV_INIT2, since Linux 6.10: the FPU's state is measured too, GHCB version 2
  kAuto,    // the newer of those that the kernel has
};

enum class Confidential : std::uint8_t {
  kSevEs,
  kNone,  // a plain guest: the same machine, nothing encrypted or measured
};

// Where interrupt controllers other than the local APICs are.
enum class IrqchipKind : std::uint8_t {
  kKernel,  // in the host: IOAPIC, PICs and PIT
  kSplit,   // an IOAPIC in this program; there are no PICs and no PIT
};

struct LaunchReport {
  std::string init_api;  // name of the command that made the VM an SEV-ES one; empty of a plain guest, as is the rest
  sev::ApiVersion api;
  sev::Digest digest{};  // as this program computes it
  sev::Measurement measurement{};
};

// Returns the packet, made for this launch, or throws.
using SecretSource = std::function<sev::SecretPacket(const LaunchReport&)>;

struct LaunchConfig {
  std::uint32_t policy = 0;
  unsigned vcpus = 1;
  std::uint32_t cpu_signature = 0;
  sev::FirmwareImage firmware;
  // Of kernel, initrd and command line: goes into the firmware's hashes area, and so into the measurement.
  std::optional<sev::HashesTable> hashes_table = std::nullopt;
  // Whole pages that the guest has below its firmware, for its variables: neither encrypted nor measured.
  std::span<std::byte> flash = {};
  // Of the guest owner, both or none; without them nobody knows the guest's transport keys.
  std::span<const std::byte> owner_certificate = {};
  std::span<const std::byte> session = {};
  // If there is one: called once the guest is measured. The packet it returns goes to the firmware's secret area.
  SecretSource secret = nullptr;
  InitApi init_api = InitApi::kEsInit;
  IrqchipKind irqchip = IrqchipKind::kKernel;
  Confidential confidential = Confidential::kSevEs;  // if kNone, only vCPUs, CPU and firmware are looked at
  const CpuModel* cpu_model = nullptr;               // nullptr: all that the host has
};

// What must live as long as the guest runs; members are destroyed last to first.
struct LaunchedGuest {
  std::optional<kvm::SevDevice> sev;  // not of a plain guest
  Mapping firmware;
  kvm::Vm vm;
  std::vector<kvm::Vcpu> vcpus;
  LaunchReport report;
};

// The guest is ready to run when this returns. `ram` must outlive it. Throws Error.
[[nodiscard]] LaunchedGuest launch(kvm::Host& host, const GuestRam& ram, const LaunchConfig& config);

}  // namespace sevisor::vmm
