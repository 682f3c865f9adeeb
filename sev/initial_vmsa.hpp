// The VMSA that KVM encrypts at LAUNCH_UPDATE_VMSA for a vCPU set up as QEMU and sevisor do: what the launch digest
// covers. Linux arch/x86/kvm/svm/sev.c sev_es_sync_vmsa(); AMD APM vol. 2 table 14-1 (processor state at reset).
#pragma once

#include <cstdint>

#include "sev/vmsa.hpp"

namespace sevisor::sev {

// Which of KVM's initialisations made the VM: they differ in whether the FPU state is written.
enum class VmsaForm : std::uint8_t {
  kEsInit,  // KVM_SEV_ES_INIT: FPU area zero
  kInit2,   // KVM_SEV_INIT2: FCW and MXCSR as after reset
};

// Who sets the registers of a vCPU before it is measured.
enum class VmmType : std::uint8_t {
  kQemu,  // and sevisor
  kEc2,   // Amazon EC2's VMM
  kGce,   // Google Compute Engine's VMM
};

// What a guest's VMSAs depend on, besides where its vCPUs start.
struct VmsaKind {
  VmmType vmm = VmmType::kQemu;
  VmsaForm form = VmsaForm::kEsInit;  // of QEMU's only: the clouds' have no FPU state
  std::uint32_t cpu_signature = 0;    // CPUID Fn0000_0001_EAX, in RDX at reset; of QEMU's only, the clouds' is fixed
  std::uint64_t features = 0;         // SEV_FEATURES, at 0x3b0 (APM vol. 2 table B-4)
};

// SEV_FEATURES bit 5, DebugSwap: some kernels of 2023 and 2024 set it for every guest of KVM_SEV_ES_INIT.
inline constexpr std::uint64_t kFeatureDebugSwap = 1U << 5;

// A guest has two different pages at most: of its first vCPU and of all others.
struct VmsaPages {
  Vmsa bsp;
  Vmsa ap;
};

// What SREGS and REGS must hold before LAUNCH_UPDATE_VMSA, so that KVM makes these pages. Attributes as in VmsaSegment.
inline constexpr std::uint16_t kResetCodeAttributes = 0x9b;  // present, code, readable, accessed
inline constexpr std::uint16_t kResetDataAttributes = 0x93;  // present, data, writable, accessed
inline constexpr std::uint16_t kResetTaskAttributes = 0x8b;  // present, busy 32-bit TSS
inline constexpr std::uint16_t kResetLdtAttributes = 0x82;   // present, LDT
inline constexpr std::uint16_t kResetCodeSelector = 0xf000;
inline constexpr std::uint32_t kResetLimit = 0xffff;
inline constexpr std::uint32_t kBspResetAddress = 0xfffffff0;  // CS.base 0xffff0000, RIP 0xfff0
inline constexpr std::uint64_t kResetCr0 = 0x10;               // ET
inline constexpr std::uint64_t kResetRflags = 0x2;
inline constexpr std::uint64_t kResetDr6 = 0xffff0ff0;
inline constexpr std::uint64_t kResetDr7 = 0x400;
inline constexpr std::uint64_t kResetPat = 0x0007040600070406;
inline constexpr std::uint32_t kResetMxcsr = 0x1f80;
inline constexpr std::uint16_t kResetFcw = 0x37f;

// `reset_address`: kBspResetAddress for the BSP, the footer table's AP reset address for the others; its upper half is
// the base of CS, its lower half the IP. `cpu_signature`: CPUID Fn0000_0001_EAX, in RDX at reset.
[[nodiscard]] Vmsa initial_vmsa(std::uint32_t reset_address, std::uint32_t cpu_signature, VmsaForm form) noexcept;

// `ap_reset_address`: of the footer table; of no use when the guest has one vCPU.
[[nodiscard]] VmsaPages initial_vmsas(const VmsaKind& kind, std::uint32_t ap_reset_address) noexcept;

}  // namespace sevisor::sev
