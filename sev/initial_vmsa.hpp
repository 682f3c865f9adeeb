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

}  // namespace sevisor::sev
