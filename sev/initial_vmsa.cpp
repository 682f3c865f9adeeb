#include "sev/initial_vmsa.hpp"

#include <initializer_list>

namespace sevisor::sev {

namespace {

constexpr std::uint64_t kEferSvme = 1U << 12;  // KVM keeps it set in every VMCB
constexpr std::uint64_t kCr4Mce = 1U << 6;     // KVM ORs in the host's

// The clouds' values: sev-snp-measure 0.0.13, which was told them by the clouds. KVM's own reset values, where the VMM
// sets none: RDX 0x600, the accessed bit clear in CS and SS, an available TSS.
constexpr std::uint32_t kCloudCpuSignature = 0x600;
constexpr std::uint16_t kUntouchedCodeAttributes = 0x9a;
constexpr std::uint16_t kUntouchedDataAttributes = 0x92;
constexpr std::uint16_t kUntouchedTaskAttributes = 0x83;
constexpr std::uint64_t kGcePat = 0x00070106;

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

VmsaPages initial_vmsas(const VmsaKind& kind, std::uint32_t ap_reset_address) noexcept {
  const bool qemu = kind.vmm == VmmType::kQemu;
  const std::uint32_t signature = qemu ? kind.cpu_signature : kCloudCpuSignature;
  const VmsaForm form = qemu ? kind.form : VmsaForm::kEsInit;
  VmsaPages pages = {initial_vmsa(kBspResetAddress, signature, form), initial_vmsa(ap_reset_address, signature, form)};
  for (Vmsa* vmsa : {&pages.bsp, &pages.ap}) {
    vmsa->sev_features = kind.features;
    if (kind.vmm == VmmType::kGce) vmsa->g_pat = kGcePat;
    if (kind.vmm == VmmType::kEc2) {
      vmsa->ss.attributes = kUntouchedDataAttributes;
      vmsa->tr.attributes = kUntouchedTaskAttributes;
    }
  }
  if (kind.vmm == VmmType::kEc2) pages.bsp.cs.attributes = kUntouchedCodeAttributes;
  return pages;
}

}  // namespace sevisor::sev
