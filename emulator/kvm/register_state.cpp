#include "emulator/kvm/register_state.hpp"

#include <algorithm>
#include <cstring>
#include <utility>

#include "emulator/cpu/state/features.hpp"

namespace sevisor::emulator {

namespace {

constexpr std::uint64_t kCr0Pe = 1 << 0;
constexpr std::uint64_t kCr0Et = 1 << 4;
constexpr std::uint64_t kCr0Nw = 1 << 29;
constexpr std::uint64_t kCr0Cd = 1 << 30;
constexpr std::uint64_t kCr0Pg = std::uint64_t{1} << 31;
constexpr std::uint64_t kCr4Pae = 1 << 5;
constexpr std::uint64_t kCr4Mce = 1 << 6;  // KVM keeps the host's
// VME .. OSXMMEXCPT, UMIP, FSGSBASE, PCIDE, OSXSAVE, SMEP, SMAP: what the CPUID table allows; LA57, PKE and CET are
// not.
constexpr std::uint64_t kCr4Allowed = 0x00370fff;
constexpr std::uint64_t kEferLme = 1 << 8;
constexpr std::uint64_t kEferLma = 1 << 10;
constexpr std::uint64_t kEferSvme = 1 << 12;  // KVM forces it
constexpr std::uint64_t kEferAllowed = 0xd01 | kEferSvme;
constexpr unsigned kPhysicalBits = 48;

constexpr std::uint16_t kAccessed = 1;
constexpr std::uint16_t kBusy = 2;
constexpr std::uint64_t kFixedRflags = 2;
constexpr std::uint64_t kDr6Fixed = 0xffff0ff0;
constexpr std::uint64_t kDr7Fixed = 0x400;

constexpr std::uint32_t kMsrTscAux = 0xc0000103;

kvm_segment unpack(const sev::VmsaSegment& s) {
  kvm_segment out{};
  out.base = s.base;
  out.limit = s.limit;
  out.selector = s.selector;
  out.type = s.attributes & 0xf;
  out.s = s.attributes >> 4 & 1;
  out.dpl = s.attributes >> 5 & 3;
  out.present = s.attributes >> 7 & 1;
  out.avl = s.attributes >> 8 & 1;
  out.l = s.attributes >> 9 & 1;
  out.db = s.attributes >> 10 & 1;
  out.g = s.limit > 0xfffff;
  out.unusable = !out.present;
  return out;
}

sev::VmsaSegment pack(const kvm_segment& s) {
  const unsigned present = (s.present & 1) && !s.unusable;
  const unsigned attributes = (s.type & 0xfu) | (s.s & 1u) << 4 | (s.dpl & 3u) << 5 | present << 7 | (s.avl & 1u) << 8 |
                              (s.l & 1u) << 9 | (s.db & 1u) << 10 | (s.g & 1u) << 11;
  return {
      .selector = s.selector, .attributes = static_cast<std::uint16_t>(attributes), .limit = s.limit, .base = s.base};
}

struct MsrField {
  std::uint32_t index;
  std::uint64_t sev::Vmsa::*field;
};
constexpr MsrField kMsrFields[] = {
    {0x174, &sev::Vmsa::sysenter_cs},
    {0x175, &sev::Vmsa::sysenter_esp},
    {0x176, &sev::Vmsa::sysenter_eip},
    {0x1d9, &sev::Vmsa::dbgctl},
    {0x277, &sev::Vmsa::g_pat},
    {0xda0, &sev::Vmsa::xss},
    {0xc0000081, &sev::Vmsa::star},
    {0xc0000082, &sev::Vmsa::lstar},
    {0xc0000083, &sev::Vmsa::cstar},
    {0xc0000084, &sev::Vmsa::sfmask},
    {0xc0000102, &sev::Vmsa::kernel_gs_base},
};
constexpr std::uint32_t kMsrEfer = 0xc0000080;
constexpr std::uint32_t kMsrFsBase = 0xc0000100;
constexpr std::uint32_t kMsrGsBase = 0xc0000101;
constexpr std::uint32_t kMsrXss = 0xda0;
constexpr std::uint32_t kMsrSpecCtrl = 0x48;
constexpr std::uint64_t kSpecCtrlBits = 0x87;  // IBRS, STIBP, SSBD, PSFD (APM vol. 2, 3.2.9)
constexpr std::uint32_t kMsrPat = 0x277;
// KVM refuses addresses that are not canonical (x86.c __kvm_set_msr()).
constexpr std::uint32_t kAddressMsrs[] = {0xc0000082, 0xc0000083, kMsrFsBase, kMsrGsBase, 0xc0000102};

bool canonical(std::uint64_t value) {
  return static_cast<std::uint64_t>(static_cast<std::int64_t>(value << 16) >> 16) == value;
}
bool valid_pat(std::uint64_t value) {
  for (unsigned shift = 0; shift < 64; shift += 8) {
    const std::uint64_t type = value >> shift & 0xff;
    if (type > 7 || type == 2 || type == 3) return false;
  }
  return true;
}

}  // namespace

RegisterState::RegisterState() : cr0_(kCr0Cd | kCr0Nw | kCr0Et) {
  const auto reset = [](std::uint16_t attributes) {
    return sev::VmsaSegment{.selector = 0, .attributes = attributes, .limit = 0xffff, .base = 0};
  };
  state_.es = state_.ss = state_.ds = state_.fs = state_.gs = reset(0x92);
  state_.cs = {.selector = 0xf000, .attributes = 0x9a, .limit = 0xffff, .base = 0xffff0000};
  state_.gdtr = state_.idtr = reset(0);
  state_.ldtr = reset(0x82);
  state_.tr = reset(0x83);
  state_.efer = kEferSvme;
  state_.cr0 = kCr0Et;  // CD and NW are cleared by a quirk that is on by default
  state_.cr4 = kCr4Mce;
  state_.dr6 = kDr6Fixed;
  state_.dr7 = kDr7Fixed;
  state_.rflags = kFixedRflags;
  state_.rip = 0xfff0;
  state_.rdx = 0x600;  // KVM resets a vCPU before it has its CPUID table
  state_.g_pat = 0x0007040600070406;
  state_.xcr0 = 1;
}

kvm_regs RegisterState::regs() const {
  const sev::Vmsa& s = state_;
  return {.rax = s.rax,
          .rbx = s.rbx,
          .rcx = s.rcx,
          .rdx = s.rdx,
          .rsi = s.rsi,
          .rdi = s.rdi,
          .rsp = s.rsp,
          .rbp = s.rbp,
          .r8 = s.r8,
          .r9 = s.r9,
          .r10 = s.r10,
          .r11 = s.r11,
          .r12 = s.r12,
          .r13 = s.r13,
          .r14 = s.r14,
          .r15 = s.r15,
          .rip = s.rip,
          .rflags = s.rflags};
}

void RegisterState::set_regs(const kvm_regs& r) {
  sev::Vmsa& s = state_;
  s.rax = r.rax, s.rbx = r.rbx, s.rcx = r.rcx, s.rdx = r.rdx, s.rsi = r.rsi, s.rdi = r.rdi, s.rsp = r.rsp,
  s.rbp = r.rbp;
  s.r8 = r.r8, s.r9 = r.r9, s.r10 = r.r10, s.r11 = r.r11, s.r12 = r.r12, s.r13 = r.r13, s.r14 = r.r14, s.r15 = r.r15;
  s.rip = r.rip;
  s.rflags = r.rflags | kFixedRflags;
}

void RegisterState::get_sregs(kvm_sregs& out) const {
  out.cs = unpack(state_.cs);
  out.ds = unpack(state_.ds);
  out.es = unpack(state_.es);
  out.fs = unpack(state_.fs);
  out.gs = unpack(state_.gs);
  out.ss = unpack(state_.ss);
  out.tr = unpack(state_.tr);
  out.ldt = unpack(state_.ldtr);
  // Intel wants them so; KVM shows them so on AMD too. SS and CS it leaves.
  for (kvm_segment* segment : {&out.ds, &out.es, &out.fs, &out.gs}) {
    if (!segment->unusable) segment->type |= kAccessed;
  }
  out.tr.type |= kBusy;
  out.gdt.base = state_.gdtr.base;
  out.gdt.limit = static_cast<std::uint16_t>(state_.gdtr.limit);
  out.idt.base = state_.idtr.base;
  out.idt.limit = static_cast<std::uint16_t>(state_.idtr.limit);
  out.cr0 = cr0_;
  out.cr2 = state_.cr2;
  out.cr3 = state_.cr3;
  out.cr4 = cr4_;
  out.efer = efer_;
}

bool RegisterState::set_sregs(const kvm_sregs& in, std::optional<unsigned> c_bit) {
  const bool paging = (in.cr0 & kCr0Pg) != 0;
  if (in.cr0 >> 32 || ((in.cr0 & kCr0Pg) && !(in.cr0 & kCr0Pe)) || ((in.cr0 & kCr0Nw) && !(in.cr0 & kCr0Cd)))
    return false;
  if (in.cr4 & ~kCr4Allowed || in.efer & ~kEferAllowed) return false;
  if ((in.efer & kEferLme) && paging) {
    if (!(in.cr4 & kCr4Pae) || !(in.efer & kEferLma)) return false;
    std::uint64_t allowed = (std::uint64_t{1} << kPhysicalBits) - 1;
    if (c_bit) allowed |= std::uint64_t{1} << *c_bit;
    if (in.cr3 & ~allowed) return false;
  } else if ((in.efer & kEferLma) || in.cs.l) {
    return false;
  }
  sev::Vmsa& s = state_;
  s.cs = pack(in.cs);
  s.ds = pack(in.ds);
  s.es = pack(in.es);
  s.fs = pack(in.fs);
  s.gs = pack(in.gs);
  s.ss = pack(in.ss);
  s.tr = pack(in.tr);
  s.ldtr = pack(in.ldt);
  s.cpl = static_cast<std::uint8_t>(in.ss.dpl & 3);
  s.gdtr.base = in.gdt.base;
  s.gdtr.limit = in.gdt.limit;
  s.idtr.base = in.idt.base;
  s.idtr.limit = in.idt.limit;
  cr0_ = in.cr0 | kCr0Et;
  cr4_ = in.cr4;
  efer_ = in.efer;
  s.cr0 = cr0_ & ~(kCr0Cd | kCr0Nw);
  s.cr2 = in.cr2;
  s.cr3 = in.cr3;
  s.cr4 = cr4_ | kCr4Mce;
  s.efer = efer_ | kEferSvme;
  return true;
}

void RegisterState::get_debugregs(kvm_debugregs& out) const {
  for (unsigned i = 0; i < breakpoints_.size(); ++i) out.db[i] = breakpoints_[i];
  out.dr6 = state_.dr6;
  out.dr7 = state_.dr7;
}

bool RegisterState::set_debugregs(const kvm_debugregs& in) {
  if (in.flags != 0 || in.dr6 >> 32 || in.dr7 >> 32) return false;
  for (unsigned i = 0; i < breakpoints_.size(); ++i) breakpoints_[i] = in.db[i];
  state_.dr6 = in.dr6 | kDr6Fixed;
  state_.dr7 = in.dr7 | kDr7Fixed;
  return true;
}

sev::Vmsa RegisterState::vmsa() const noexcept { return state_; }

sev::Vmsa RegisterState::running() const {
  sev::Vmsa state = state_;
  state.cr0 = cr0_;
  state.cr4 = cr4_;
  state.efer = efer_;
  state.spec_ctrl = spec_ctrl_;
  for (unsigned i = 0; i < breakpoints_.size(); ++i) state.dr[i] = breakpoints_[i];
  return state;
}

void RegisterState::adopt(const sev::Vmsa& vmsa) {
  state_ = vmsa;
  cr0_ = vmsa.cr0;
  cr4_ = vmsa.cr4;
  efer_ = vmsa.efer & ~kEferSvme;
  spec_ctrl_ = std::exchange(state_.spec_ctrl, 0);
  for (unsigned i = 0; i < breakpoints_.size(); ++i) breakpoints_[i] = std::exchange(state_.dr[i], 0);
  state_.cr0 &= ~(kCr0Cd | kCr0Nw);
  state_.cr4 |= kCr4Mce;
  state_.efer |= kEferSvme;
}

void RegisterState::reset_by_init(std::uint32_t signature) {
  const sev::Vmsa before = state_;
  const std::uint64_t cache_bits = cr0_ & (kCr0Cd | kCr0Nw);
  const std::uint32_t spec_ctrl = spec_ctrl_;
  *this = RegisterState();
  for (const MsrField& field : kMsrFields) state_.*field.field = before.*field.field;
  state_.tsc_aux = before.tsc_aux;
  state_.xcr0 = before.xcr0;
  state_.pkru = before.pkru;
  cr0_ = kCr0Et | cache_bits;
  state_.rdx = signature;
  spec_ctrl_ = spec_ctrl;
}

void RegisterState::start_at(std::uint8_t vector) {
  state_.cs.selector = static_cast<std::uint16_t>(vector << 8);
  state_.cs.base = std::uint64_t{vector} << 12;
  state_.rip = 0;
}

bool RegisterState::has_breakpoints() const noexcept { return (state_.dr7 & ~kDr7Fixed) != 0; }

bool RegisterState::set_xcr0(std::uint64_t value) {
  if (!valid_xcr0(value)) return false;
  state_.xcr0 = value;
  return true;
}

std::uint64_t* RegisterState::msr(std::uint32_t index) {
  for (const MsrField& field : kMsrFields) {
    if (field.index == index) return &(state_.*field.field);
  }
  if (index == kMsrFsBase) return &state_.fs.base;
  if (index == kMsrGsBase) return &state_.gs.base;
  return nullptr;
}

bool RegisterState::owns_msr(std::uint32_t index) {
  RegisterState any;
  return any.msr(index) != nullptr || index == kMsrEfer || index == kMsrTscAux || index == kMsrSpecCtrl;
}

std::optional<std::uint64_t> RegisterState::read_msr(std::uint32_t index) {
  if (index == kMsrEfer) return efer_;
  if (index == kMsrTscAux) return state_.tsc_aux;
  if (index == kMsrSpecCtrl) return spec_ctrl_;
  if (const std::uint64_t* value = msr(index)) return *value;
  return std::nullopt;
}

bool RegisterState::write_msr(std::uint32_t index, std::uint64_t value) {
  if (index == kMsrEfer) {
    if (value & ~kEferAllowed) return false;
    efer_ = value;
    state_.efer = value | kEferSvme;
    return true;
  }
  if (index == kMsrTscAux) {
    if (value >> 32) return false;
    state_.tsc_aux = static_cast<std::uint32_t>(value);
    return true;
  }
  if (index == kMsrSpecCtrl) {
    if (value & ~kSpecCtrlBits) return false;
    spec_ctrl_ = static_cast<std::uint32_t>(value);
    return true;
  }
  if (index == kMsrXss && value != 0) return false;
  if (index == kMsrPat && !valid_pat(value)) return false;
  if (std::ranges::find(kAddressMsrs, index) != std::end(kAddressMsrs) && !canonical(value)) return false;
  std::uint64_t* at = msr(index);
  if (at == nullptr) return false;
  *at = value;
  return true;
}

}  // namespace sevisor::emulator
