// A vCPU's x87, SSE and AVX registers as KVM keeps them, in the layout of KVM_SET_XSAVE, and how they get into the VMSA
// and back. Linux arch/x86/kernel/fpu/xstate.c copy_uabi_to_xstate(), arch/x86/kvm/svm/sev.c
// sev_es_sync_vmsa().
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "kvm/abi.hpp"
#include "sev/vmsa.hpp"

namespace sevisor::emulator {

inline constexpr std::size_t kXsaveBytes = sizeof(kvm_xsave);

class FpuState {
 public:
  FpuState();  // as FNINIT and LDMXCSR 0x1f80 leave it

  [[nodiscard]] kvm_fpu fpu() const;
  void set_fpu(const kvm_fpu& fpu);  // MXCSR stays, as in KVM

  [[nodiscard]] std::span<const std::byte, kXsaveBytes> xsave() const noexcept { return area_; }
  // false, nothing changed: EINVAL, for a component that this processor has not, the compacted format, reserved bits.
  [[nodiscard]] bool set_xsave(std::span<const std::byte, kXsaveBytes> area);

  // What KVM_SEV_INIT2 adds to the measured VMSA and KVM_SEV_ES_INIT does not.
  void write_to(sev::Vmsa& vmsa) const;
  // An ordinary guest's: to the processor, where components that the header does not name begin anew (XRSTOR), and
  // back.
  void start(sev::Vmsa& vmsa) const;
  void adopt(const sev::Vmsa& vmsa);

 private:
  std::array<std::byte, kXsaveBytes> area_{};
};

}  // namespace sevisor::emulator
