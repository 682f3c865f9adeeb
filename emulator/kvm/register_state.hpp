// A vCPU's registers as KVM keeps them: of an ordinary guest whenever it does not run, of an SEV-ES guest before
// LAUNCH_UPDATE_VMSA, and the VMSA it makes of them. The bytes of that VMSA
// are measured, so each of KVM's normalisations counts. Linux arch/x86/kvm/svm/sev.c sev_es_sync_vmsa(), svm.c
// init_vmcb(), svm_get_segment(), svm_set_segment(), svm_set_cr0/cr4/efer(); measured results: docs of
// sev/initial_vmsa.hpp.
#pragma once

#include <array>
#include <cstdint>
#include <optional>

#include "kvm/abi.hpp"
#include "sev/vmsa.hpp"

namespace sevisor::emulator {

class RegisterState {
 public:
  RegisterState();

  [[nodiscard]] kvm_regs regs() const;
  void set_regs(const kvm_regs& regs);

  // Control registers and segments; cr8 and apic_base are the APIC's and left alone.
  void get_sregs(kvm_sregs& sregs) const;
  // false, nothing changed: EINVAL. `c_bit_known`: CPUID 0x8000001F was given, so CR3 may carry the C-bit.
  [[nodiscard]] bool set_sregs(const kvm_sregs& sregs, std::optional<unsigned> c_bit);

  void get_debugregs(kvm_debugregs& registers) const;
  [[nodiscard]] bool set_debugregs(const kvm_debugregs& registers);

  [[nodiscard]] std::uint64_t xcr0() const noexcept { return state_.xcr0; }
  [[nodiscard]] bool set_xcr0(std::uint64_t value);

  // The register of the VMSA that holds this MSR; null: the VMSA holds none such.
  [[nodiscard]] std::uint64_t* msr(std::uint32_t index);
  // SYSENTER_CS and the like are whole quadwords, TSC_AUX is half of one.
  [[nodiscard]] std::optional<std::uint64_t> read_msr(std::uint32_t index);
  [[nodiscard]] bool write_msr(std::uint32_t index, std::uint64_t value);
  [[nodiscard]] static bool owns_msr(std::uint32_t index);

  // An ordinary guest's: what the processor is to run with, and what it has left.
  [[nodiscard]] sev::Vmsa running() const;
  void adopt(const sev::Vmsa& vmsa);
  // INIT (APM vol. 2 table 14-1; Linux kvm_vcpu_reset()): what it leaves alone stays. `signature`: CPUID 1 EAX.
  void reset_by_init(std::uint32_t signature);
  // A SIPI with this vector.
  void start_at(std::uint8_t vector);

  // KVM refuses to encrypt a vCPU with breakpoints set.
  [[nodiscard]] bool has_breakpoints() const noexcept;
  [[nodiscard]] sev::Vmsa vmsa() const noexcept;

 private:
  sev::Vmsa state_{};  // what the VMSA will be: CR0, CR4, EFER as the VMCB has them
  std::uint64_t cr0_;  // as user space set it
  std::uint64_t cr4_ = 0;
  std::uint64_t efer_ = 0;
  std::array<std::uint64_t, 4> breakpoints_{};  // DR0 to DR3, which no VMSA without debug-register swap has
  std::uint32_t spec_ctrl_ = 0;                 // nor is this measured
};

}  // namespace sevisor::emulator
