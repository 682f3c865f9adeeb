// KVM_CHECK_EXTENSION.
#pragma once

#include <cstdint>
#include <linux/kvm_para.h>

#include "emulator/kvm/personality.hpp"
#include "kvm/abi.hpp"

namespace sevisor::emulator {

inline constexpr int kMaxVcpus = 512;

// KVM_CAP_SYNC_REGS: what kvm_run can hand over.
inline constexpr std::uint64_t kSyncRegs = KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS | KVM_SYNC_X86_EVENTS;

// KVM_CAP_VM_TYPES.
inline constexpr int kVmTypes = 1 << kvm::kVmTypeDefault | 1 << kvm::kVmTypeSev | 1 << kvm::kVmTypeSevEs;

// MAX_IO_MSRS: KVM_GET_MSRS and KVM_SET_MSRS take fewer.
inline constexpr std::uint32_t kMaxMsrEntries = 256;

// A tick is 1 ns, and no other rate can be had.
inline constexpr int kTscKhz = 1'000'000;
// KVM_SET_TSC_KHZ: 0 means the host's own; KVM takes 250 ppm (its module's tsc_tolerance_ppm) for none.
[[nodiscard]] constexpr bool tsc_rate_possible(std::uint64_t khz) noexcept {
  constexpr std::uint64_t kTolerance = std::uint64_t{kTscKhz} * 250 / 1'000'000;
  return khz == 0 || (khz >= kTscKhz - kTolerance && khz <= kTscKhz + kTolerance);
}

// KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2.
inline constexpr int kDirtyLogOptions = KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE | KVM_DIRTY_LOG_INITIALLY_SET;

// KVM_CAP_EXIT_HYPERCALL: those that user space may answer, one bit each.
inline constexpr int kExitHypercalls = 1 << KVM_HC_MAP_GPA_RANGE;

// 0: not there. As on /dev/kvm; a VM may have less.
[[nodiscard]] int check_extension(long capability, const Personality& personality) noexcept;

}  // namespace sevisor::emulator
