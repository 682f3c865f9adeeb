#include "emulator/cpu/state/vmsa_state.hpp"

#include <algorithm>
#include <cstring>
#include <span>
#include <utility>

#include "emulator/cpu/state/host_unit.hpp"
#include "emulator/cpu/system.hpp"

namespace sevisor::emulator {

namespace {

// --- x87: the VMSA has FXSAVE's tags (one bit a register: KVM copies them as they are, and its self-test finds them in
// the guest's XSAVE), eight mantissas, then eight exponents; FXSAVE has 16 bytes for each register -----

constexpr std::size_t kFxRegisterSize = 16;
constexpr unsigned kRegisters = 8;

void load_x87(VectorState& vec, const Vmsa& vmsa) {
  const std::span<std::byte> fx = vec.x87;
  vec.x87_cs = vmsa.x87_cs;
  vec.x87_ds = vmsa.x87_ds;
  store(&fx[kFxFcw], vmsa.x87_fcw);
  store(&fx[kFxFsw], vmsa.x87_fsw);
  store(&fx[kFxFop], vmsa.x87_fop);
  store(&fx[kFxRip], vmsa.x87_rip);
  store(&fx[kFxDp], vmsa.x87_dp);
  for (unsigned i = 0; i < kRegisters; ++i) {
    std::byte* to = &fx[kFxSt + i * kFxRegisterSize];
    store(to, load<std::uint64_t>(&vmsa.x87_registers[8 * i]));
    store(to + 8, load<std::uint16_t>(&vmsa.x87_registers[64 + 2 * i]));
  }
  store(&fx[kFxFtw], static_cast<std::uint8_t>(vmsa.x87_ftw));
}

void save_x87(const VectorState& vec, Vmsa& vmsa) {
  const std::span<const std::byte> fx = vec.x87;
  vmsa.x87_cs = vec.x87_cs;
  vmsa.x87_ds = vec.x87_ds;
  vmsa.x87_fcw = load<std::uint16_t>(&fx[kFxFcw]);
  vmsa.x87_fsw = load<std::uint16_t>(&fx[kFxFsw]);
  vmsa.x87_fop = load<std::uint16_t>(&fx[kFxFop]);
  vmsa.x87_rip = load<std::uint64_t>(&fx[kFxRip]);
  vmsa.x87_dp = load<std::uint64_t>(&fx[kFxDp]);
  vmsa.x87_ftw = load<std::uint8_t>(&fx[kFxFtw]);
  for (unsigned i = 0; i < kRegisters; ++i) {
    const std::byte* from = &fx[kFxSt + i * kFxRegisterSize];
    store(&vmsa.x87_registers[8 * i], load<std::uint64_t>(from));
    store(&vmsa.x87_registers[64 + 2 * i], load<std::uint16_t>(from + 8));
  }
}

// --- fields that are copied as they are ------------------------------------------------------------------------------

// Calls `f(core field, VMSA field)` for each. The same list loads and saves.
template <class C, class V, class F>
void for_plain_fields(C& core, V& vmsa, F f) {
  f(core.gpr[0], vmsa.rax);
  f(core.gpr[1], vmsa.rcx);
  f(core.gpr[2], vmsa.rdx);
  f(core.gpr[3], vmsa.rbx);
  f(core.gpr[4], vmsa.rsp);
  f(core.gpr[5], vmsa.rbp);
  f(core.gpr[6], vmsa.rsi);
  f(core.gpr[7], vmsa.rdi);
  f(core.gpr[8], vmsa.r8);
  f(core.gpr[9], vmsa.r9);
  f(core.gpr[10], vmsa.r10);
  f(core.gpr[11], vmsa.r11);
  f(core.gpr[12], vmsa.r12);
  f(core.gpr[13], vmsa.r13);
  f(core.gpr[14], vmsa.r14);
  f(core.gpr[15], vmsa.r15);
  f(core.rip, vmsa.rip);
  f(core.cpl, vmsa.cpl);
  f(core.efer, vmsa.efer);
  f(core.cr0, vmsa.cr0);
  f(core.cr2, vmsa.cr2);
  f(core.cr3, vmsa.cr3);
  f(core.cr4, vmsa.cr4);
  f(core.dr6, vmsa.dr6);
  f(core.dr7, vmsa.dr7);
  for (unsigned i = 0; i < 4; ++i) {
    f(core.dr[i], vmsa.dr[i]);
    f(core.dr_mask[i], vmsa.dr_mask[i]);
  }
  f(core.msr.star, vmsa.star);
  f(core.msr.lstar, vmsa.lstar);
  f(core.msr.cstar, vmsa.cstar);
  f(core.msr.sfmask, vmsa.sfmask);
  f(core.msr.kernel_gs_base, vmsa.kernel_gs_base);
  f(core.msr.sysenter_cs, vmsa.sysenter_cs);
  f(core.msr.sysenter_esp, vmsa.sysenter_esp);
  f(core.msr.sysenter_eip, vmsa.sysenter_eip);
  f(core.msr.pat, vmsa.g_pat);
  f(core.msr.tsc_aux, vmsa.tsc_aux);
  f(core.msr.xss, vmsa.xss);
  f(core.msr.debug_control, vmsa.dbgctl);
  f(core.msr.spec_ctrl, vmsa.spec_ctrl);
  f(core.vec.mxcsr, vmsa.mxcsr);
  f(core.vec.xcr0, vmsa.xcr0);
  f(core.vec.pkru, vmsa.pkru);
  f(core.sev_features, vmsa.sev_features);
}

// In the order of SegmentRegister.
using SegmentFields = std::array<sev::VmsaSegment Vmsa::*, kSegmentCount>;
constexpr SegmentFields kSegments = {&Vmsa::es, &Vmsa::cs, &Vmsa::ss, &Vmsa::ds, &Vmsa::fs, &Vmsa::gs};
using SystemField = std::pair<SystemSegment Core::*, sev::VmsaSegment Vmsa::*>;
constexpr std::array<SystemField, 4> kSystemSegments = {
    {{&Core::gdtr, &Vmsa::gdtr}, {&Core::ldtr, &Vmsa::ldtr}, {&Core::idtr, &Vmsa::idtr}, {&Core::tr, &Vmsa::tr}}};

Segment hidden(const sev::VmsaSegment& s) {
  return {.selector = s.selector, .attributes = s.attributes, .limit = s.limit};
}
sev::VmsaSegment visible(const Segment& s, std::uint64_t base) {
  return {.selector = s.selector, .attributes = s.attributes, .limit = s.limit, .base = base};
}

// --- what VMRUN checks -----------------------------------------------------------------------------------------------

template <std::size_t kSize>
bool zero(const std::uint8_t (&field)[kSize]) {
  return std::all_of(std::begin(field), std::end(field), [](std::uint8_t b) { return b == 0; });
}

bool reserved_fields_clear(const Vmsa& v) {
  return zero(v.reserved_0c8) && zero(v.reserved_0cc) && zero(v.reserved_0d8) && zero(v.reserved_1c0) &&
         zero(v.reserved_248) && zero(v.reserved_298) && v.reserved_2e4 == 0 && v.reserved_320 == 0 &&
         zero(v.reserved_380) && zero(v.reserved_3f0) && zero(v.reserved_670);
}

bool upper_half_clear(std::uint64_t value) { return (value >> 32) == 0; }

}  // namespace

bool vmsa_acceptable(const CpuConfig& config, const Vmsa& v) noexcept {
  if (!reserved_fields_clear(v)) return false;
  if (!upper_half_clear(v.cr0) || !upper_half_clear(v.dr6) || !upper_half_clear(v.dr7)) return false;
  if ((v.cr0 & kCr0Nw) != 0 && (v.cr0 & kCr0Cd) == 0) return false;
  if ((v.cr4 & ~kCr4Implemented) != 0 || (v.efer & ~(kEferWritable | kEferIgnored)) != 0) return false;
  const bool paging = (v.cr0 & kCr0Pg) != 0;
  const bool protection = (v.cr0 & kCr0Pe) != 0;
  if (paging && !protection) return false;
  if (paging && (v.efer & kEferLme) != 0) {
    const std::uint64_t c_bit = c_bit_mask(config);
    if ((v.cr4 & kCr4Pae) == 0 || ((v.cr3 & ~c_bit) >> config.physical_bits) != 0) return false;
    if ((v.cs.attributes & kSegLong) != 0 && (v.cs.attributes & kSegDefault) != 0) return false;
  }
  return v.cpl <= 3 && valid_xcr0(v.xcr0) && v.vmpl == 0;
}

void load_vmsa(Core& core, const Vmsa& vmsa) noexcept {
  for_plain_fields(core, vmsa, [](auto& to, const auto& from) { to = from; });
  core.gpr[kRegZero] = 0;
  for (std::size_t s = 0; s < kSegmentCount; ++s) {
    const sev::VmsaSegment& from = vmsa.*kSegments[s];
    core.seg[s] = hidden(from);
    core.gpr[kRegSegmentBase + s] = from.base;
  }
  for (const auto& [to, from] : kSystemSegments) {
    static_cast<Segment&>(core.*to) = hidden(vmsa.*from);
    (core.*to).base = (vmsa.*from).base;
  }
  const bool long_mode = (vmsa.efer & kEferLme) != 0 && (vmsa.cr0 & kCr0Pg) != 0;
  core.efer = (vmsa.efer & ~kEferLma) | (long_mode ? kEferLma : 0);
  core.set_rflags(vmsa.rflags & ~kFlagVm);
  load_x87(core.vec, vmsa);
  for (unsigned i = 0; i < core.vec.ymm.size(); ++i) {
    std::memcpy(core.vec.ymm[i].data(), vmsa.xmm[i], 16);
    std::memcpy(core.vec.ymm[i].data() + 16, vmsa.ymm_high[i], 16);
  }
  core.flush_tlb(false);
  if (!core.breakpoints_armed) core.system_flags &= ~kFlagRf;
}

void save_vmsa(const Core& core, Vmsa& vmsa) noexcept {
  for_plain_fields(core, vmsa, [](const auto& from, auto& to) { to = static_cast<std::decay_t<decltype(to)>>(from); });
  for (std::size_t s = 0; s < kSegmentCount; ++s) {
    vmsa.*kSegments[s] = visible(core.seg[s], core.gpr[kRegSegmentBase + s]);
  }
  for (const auto& [from, to] : kSystemSegments) vmsa.*to = visible(core.*from, (core.*from).base);
  vmsa.rflags = core.rflags();
  save_x87(core.vec, vmsa);
  for (unsigned i = 0; i < core.vec.ymm.size(); ++i) {
    std::memcpy(vmsa.xmm[i], core.vec.ymm[i].data(), 16);
    std::memcpy(vmsa.ymm_high[i], core.vec.ymm[i].data() + 16, 16);
  }
}

}  // namespace sevisor::emulator
