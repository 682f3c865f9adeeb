// Model-specific registers, the time-stamp counter and performance counters. What KVM passes through to SEV-ES guests
// is answered here, everything else is a non-automatic exit (Linux arch/x86/kvm/svm/svm.c direct_access_msrs[]).
#include <algorithm>

#include "emulator/cpu/intercepts.hpp"
#include "emulator/cpu/system.hpp"

namespace sevisor::emulator {

namespace {

// APM vol. 2 appendix A.
constexpr std::uint32_t kMsrSpecCtrl = 0x48;
constexpr std::uint32_t kMsrPredCmd = 0x49;
constexpr std::uint32_t kMsrSysenterCs = 0x174;
constexpr std::uint32_t kMsrSysenterEsp = 0x175;
constexpr std::uint32_t kMsrSysenterEip = 0x176;
constexpr std::uint32_t kMsrPat = 0x277;
constexpr std::uint32_t kMsrXss = 0xda0;
constexpr std::uint32_t kMsrEfer = 0xc000'0080;
constexpr std::uint32_t kMsrStar = 0xc000'0081;
constexpr std::uint32_t kMsrLstar = 0xc000'0082;
constexpr std::uint32_t kMsrCstar = 0xc000'0083;
constexpr std::uint32_t kMsrSfmask = 0xc000'0084;
constexpr std::uint32_t kMsrFsBase = 0xc000'0100;
constexpr std::uint32_t kMsrGsBase = 0xc000'0101;
constexpr std::uint32_t kMsrKernelGsBase = 0xc000'0102;
constexpr std::uint32_t kMsrTscAux = 0xc000'0103;
constexpr std::uint32_t kMsrGhcb = 0xc001'0130;
constexpr std::uint32_t kMsrSevStatus = 0xc001'0131;

constexpr std::uint32_t kDirect[] = {kMsrSpecCtrl, kMsrPredCmd, kMsrSysenterCs, kMsrSysenterEsp, kMsrSysenterEip,
                                     kMsrPat,      kMsrXss,     kMsrEfer,       kMsrStar,        kMsrLstar,
                                     kMsrCstar,    kMsrSfmask,  kMsrFsBase,     kMsrGsBase,      kMsrKernelGsBase,
                                     kMsrTscAux,   kMsrGhcb};

bool intercepted(const Core& core, bool write) {
  const MsrIntercepts* map = core.controls.msr_intercepts;
  if (map == nullptr) return false;
  const std::vector<std::uint32_t>& indices = write ? map->writes : map->reads;
  return std::ranges::find(indices, static_cast<std::uint32_t>(core.gpr[1])) != indices.end();
}

// SEV_STATUS: 0 SEV, 1 SEV-ES; bit n + 2 shows SEV_FEATURES bit n (APM vol. 2, 15.34.10).
constexpr std::uint64_t kSevStatusSev = 1;
constexpr std::uint64_t kSevStatusSevEs = 3;
constexpr unsigned kSevStatusFeatures = 2;

std::uint64_t sev_status(const Core& core) {
  switch (core.config.protection) {
    case Protection::kNone:
      return 0;
    case Protection::kSev:
      return kSevStatusSev;
    case Protection::kSevEs:
      break;
  }
  return kSevStatusSevEs | core.sev_features << kSevStatusFeatures;
}

constexpr std::uint64_t kExitInfoWrite = 1;  // EXITINFO1 of an MSR exit

// SPEC_CTRL (3.2.9): IBRS, STIBP, SSBD, PSFD. Nothing speculates here: they are kept to be read back.
constexpr std::uint64_t kSpecCtrlBits = 1U << 0 | 1U << 1 | 1U << 2 | 1U << 7;
constexpr std::uint64_t kPredCmdIbpb = 1;

std::uint64_t write_value(const Core& core) { return (core.gpr[2] << 32) | (core.gpr[0] & 0xffff'ffff); }

bool valid_pat(std::uint64_t value) {
  for (unsigned shift = 0; shift < 64; shift += 8) {
    const std::uint64_t type = value >> shift & 0xff;
    if (type > 7 || type == 2 || type == 3) return false;
  }
  return true;
}

const Op* write_efer(Core& core, const Op* op) {
  const std::uint64_t value = write_value(core);
  if ((value & ~(kEferWritable | kEferIgnored)) != 0) return core.fault(kVectorGp, 0);
  const std::uint64_t before = core.efer;
  const std::uint64_t after = (before & kEferIgnored) | (value & kEferWritable);
  if (((before ^ after) & kEferLme) != 0 && (core.cr0 & kCr0Pg) != 0) return core.fault(kVectorGp, 0);
  core.efer = after;
  if (((before ^ after) & kEferNxe) != 0) core.flush_tlb(false);
  if (before == after) return op + 1;
  return intercept<ghcb::kExitEferWriteTrap>(core, op, after);
}

// Stores an address that must be canonical.
bool set_address(Core& core, std::uint64_t& to) {
  const std::uint64_t value = write_value(core);
  if (!canonical(value)) return core.raise(kVectorGp, 0);
  to = value;
  return true;
}

const Op* op_rdmsr(Core& core, const Op* op) {
  if (core.cpl != 0) return core.fault(kVectorGp, 0);
  if (intercepted(core, false)) return intercept<ghcb::kExitMsr>(core, op);
  std::uint64_t value = 0;
  switch (static_cast<std::uint32_t>(core.gpr[1])) {
    case kMsrSpecCtrl:
      value = core.msr.spec_ctrl;
      break;
    case kMsrPredCmd:
      return core.fault(kVectorGp, 0);  // can only be written
    case kMsrSysenterCs:
      value = core.msr.sysenter_cs;
      break;
    case kMsrSysenterEsp:
      value = core.msr.sysenter_esp;
      break;
    case kMsrSysenterEip:
      value = core.msr.sysenter_eip;
      break;
    case kMsrPat:
      value = core.msr.pat;
      break;
    case kMsrXss:
      value = core.msr.xss;
      break;
    case kMsrEfer:
      value = core.efer;
      break;
    case kMsrStar:
      value = core.msr.star;
      break;
    case kMsrLstar:
      value = core.msr.lstar;
      break;
    case kMsrCstar:
      value = core.msr.cstar;
      break;
    case kMsrSfmask:
      value = core.msr.sfmask;
      break;
    case kMsrFsBase:
      value = core.segment_base(kFs);
      break;
    case kMsrGsBase:
      value = core.segment_base(kGs);
      break;
    case kMsrKernelGsBase:
      value = core.msr.kernel_gs_base;
      break;
    case kMsrTscAux:
      value = core.msr.tsc_aux;
      break;
    case kMsrGhcb:
      if (core.config.protection != Protection::kSevEs) return intercept<ghcb::kExitMsr>(core, op);
      value = core.ghcb;
      break;
    case kMsrSevStatus:
      value = sev_status(core);
      break;
    default:
      return intercept<ghcb::kExitMsr>(core, op);
  }
  core.gpr[0] = value & 0xffff'ffff;
  core.gpr[2] = value >> 32;
  return op + 1;
}

const Op* op_wrmsr(Core& core, const Op* op) {
  if (core.cpl != 0) return core.fault(kVectorGp, 0);
  if (intercepted(core, true)) return intercept<ghcb::kExitMsr>(core, op, kExitInfoWrite);
  const std::uint64_t value = write_value(core);
  bool good = true;
  switch (static_cast<std::uint32_t>(core.gpr[1])) {
    case kMsrSpecCtrl:
      if ((value & ~kSpecCtrlBits) != 0) return core.fault(kVectorGp, 0);
      core.msr.spec_ctrl = value;
      break;
    case kMsrPredCmd:
      if ((value & ~kPredCmdIbpb) != 0) return core.fault(kVectorGp, 0);
      break;
    case kMsrSysenterCs:
      core.msr.sysenter_cs = value;
      break;
    case kMsrSysenterEsp:
      good = set_address(core, core.msr.sysenter_esp);
      break;
    case kMsrSysenterEip:
      good = set_address(core, core.msr.sysenter_eip);
      break;
    case kMsrPat:
      if (!valid_pat(value)) return core.fault(kVectorGp, 0);
      core.msr.pat = value;
      break;
    case kMsrXss:
      // No supervisor state component is offered.
      if (value != 0) return core.fault(kVectorGp, 0);
      break;
    case kMsrEfer:
      return write_efer(core, op);
    case kMsrStar:
      core.msr.star = value;
      break;
    case kMsrLstar:
      good = set_address(core, core.msr.lstar);
      break;
    case kMsrCstar:
      good = set_address(core, core.msr.cstar);
      break;
    case kMsrSfmask:
      core.msr.sfmask = value & 0xffff'ffff;
      break;
    case kMsrFsBase:
      good = set_address(core, core.segment_base(kFs));
      break;
    case kMsrGsBase:
      good = set_address(core, core.segment_base(kGs));
      break;
    case kMsrKernelGsBase:
      good = set_address(core, core.msr.kernel_gs_base);
      break;
    case kMsrTscAux:
      if ((value >> 32) != 0) return core.fault(kVectorGp, 0);
      core.msr.tsc_aux = value;
      break;
    case kMsrGhcb:
      if (core.config.protection != Protection::kSevEs) return intercept<ghcb::kExitMsr>(core, op, kExitInfoWrite);
      core.ghcb = value;
      break;
    case kMsrSevStatus:
      return core.fault(kVectorGp, 0);
    default:
      return intercept<ghcb::kExitMsr>(core, op, kExitInfoWrite);
  }
  return good ? op + 1 : core.fault();
}

bool tsc_denied(const Core& core) { return (core.cr4 & kCr4Tsd) != 0 && core.cpl != 0 && protected_mode(core); }

const Op* op_rdtsc(Core& core, const Op* op) {
  if (tsc_denied(core)) return core.fault(kVectorGp, 0);
  const std::uint64_t now = core.now(op);
  core.gpr[0] = now & 0xffff'ffff;
  core.gpr[2] = now >> 32;
  return op + 1;
}

const Op* op_rdtscp(Core& core, const Op* op) {
  if (tsc_denied(core)) return core.fault(kVectorGp, 0);
  core.gpr[1] = core.msr.tsc_aux & 0xffff'ffff;
  return op_rdtsc(core, op);
}

// dst: register.
const Op* op_rdpid(Core& core, const Op* op) {
  core.set_reg(op->dst, core.msr.tsc_aux & 0xffff'ffff);
  return op + 1;
}

const Op* op_rdpmc(Core& core, const Op* op) {
  if (core.cpl != 0 && (core.cr4 & kCr4Pce) == 0) return core.fault(kVectorGp, 0);
  return intercept<ghcb::kExitRdpmc>(core, op);
}

template <Handler kHandler>
bool select_plain(Insn& /*insn*/, Op& op) {
  op.fn = kHandler;
  return true;
}

bool select_wrmsr(Insn& insn, Op& op) {
  insn.last = true;  // EFER
  return select_plain<op_wrmsr>(insn, op);
}

bool select_rdpid(Insn& insn, Op& op) {
  op.dst = register_offset(insn.op(0).reg.value);
  return select_plain<op_rdpid>(insn, op);
}

}  // namespace

std::span<const std::uint32_t> direct_msrs() noexcept { return kDirect; }

void add_msr(SelectorTable& table) {
  table[ZYDIS_MNEMONIC_RDMSR] = select_plain<op_rdmsr>;
  table[ZYDIS_MNEMONIC_WRMSR] = select_wrmsr;
  table[ZYDIS_MNEMONIC_RDTSC] = select_plain<op_rdtsc>;
  table[ZYDIS_MNEMONIC_RDTSCP] = select_plain<op_rdtscp>;
  table[ZYDIS_MNEMONIC_RDPID] = select_rdpid;
  table[ZYDIS_MNEMONIC_RDPMC] = select_plain<op_rdpmc>;
}

}  // namespace sevisor::emulator
