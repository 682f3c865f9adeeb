#include "sev/initial_vmsa.hpp"

#include <initializer_list>

namespace sevisor::sev {

namespace {

constexpr std::uint64_t kEferSvme = 1U << 12;  // KVM keeps it set in every VMCB
constexpr std::uint64_t kCr4Mce = 1U << 6;     // KVM ORs in the host's

}  // namespace

Vmsa initial_vmsa(std::uint32_t reset_address, std::uint32_t cpu_signature, VmsaForm form) noexcept {
  Vmsa vmsa{};
  for (VmsaSegment* segment : {&vmsa.es, &vmsa.ss, &vmsa.ds, &vmsa.fs, &vmsa.gs}) {
    *segment = {0, kResetDataAttributes, kResetLimit, 0};
  }
  vmsa.cs = {kResetCodeSelector, kResetCodeAttributes, kResetLimit, reset_address & 0xffff0000};
  vmsa.gdtr.limit = kResetLimit;
  vmsa.idtr.limit = kResetLimit;
  vmsa.ldtr = {0, kResetLdtAttributes, kResetLimit, 0};
  vmsa.tr = {0, kResetTaskAttributes, kResetLimit, 0};
  vmsa.efer = kEferSvme;
  vmsa.cr4 = kCr4Mce;
  vmsa.cr0 = kResetCr0;
  vmsa.dr7 = kResetDr7;
  vmsa.dr6 = kResetDr6;
  vmsa.rflags = kResetRflags;
  vmsa.rip = reset_address & 0xffff;
  vmsa.g_pat = kResetPat;
  vmsa.rdx = cpu_signature;
  vmsa.xcr0 = 1;
  if (form == VmsaForm::kInit2) {
    vmsa.mxcsr = kResetMxcsr;
    vmsa.x87_fcw = kResetFcw;
  }
  return vmsa;
}

}  // namespace sevisor::sev
