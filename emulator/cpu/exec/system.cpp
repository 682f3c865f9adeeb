// The remaining system instructions: those that only exit, cache and TLB control, fences; and the table of them all.
#include "emulator/cpu/system.hpp"

#include <algorithm>

#include "emulator/cpu/intercepts.hpp"

namespace sevisor::emulator {

namespace {

// --- instructions that exit ------------------------------------------------------------------------------------------

enum class Who : std::uint8_t {
  kAnyone,
  kKernel,    // #GP(0) for others
  kKernelUd,  // #UD for others: MONITOR, MWAIT
  kSvm,       // #UD without EFER.SVME or outside protected mode, #GP(0) for user code
};

template <ghcb::ExitCode kCode, Who kWho>
const Op* op_exit(Core& core, const Op* op) {
  if constexpr (kWho == Who::kSvm) {
    if ((core.efer & kEferSvme) == 0 || !protected_mode(core)) return core.fault(kVectorUd);
  }
  if constexpr (kWho != Who::kAnyone) {
    if (core.cpl != 0) return kWho == Who::kKernelUd ? core.fault(kVectorUd) : core.fault(kVectorGp, 0);
  }
  return intercept<kCode>(core, op);
}

// Without SEV-ES it is VMMCALL (APM vol. 3, VMGEXIT).
const Op* op_vmgexit(Core& core, const Op* op) {
  if (core.config.protection != Protection::kSevEs) return intercept<ghcb::kExitVmmcall>(core, op);
  return intercept<ghcb::kExitVmgexit>(core, op);
}

const Op* op_pause(Core& core, const Op* op) {
  const std::uint64_t now = core.now(op);
  if (now - core.last_pause > kPauseFilterThreshold) core.pauses_left = kPauseFilterCount;
  core.last_pause = now;
  if (--core.pauses_left != 0) return op + 1;
  return intercept<ghcb::kExitPause>(core, op);
}

bool select_pause(Insn& /*insn*/, Op& op) {
  op.fn = op_pause;
  return true;
}

template <ghcb::ExitCode kCode, Who kWho = Who::kAnyone>
bool select_exit(Insn& insn, Op& op) {
  op.fn = op_exit<kCode, kWho>;
  insn.ends_block = true;
  return true;
}

// F3 (or F2) 0F 01 D9 is VMGEXIT, which Zydis 4.0 does not know; without the prefix VMMCALL (APM vol. 3).
bool select_vmmcall(Insn& insn, Op& op) {
  constexpr std::byte kRepne{0xf2};
  constexpr std::byte kRep{0xf3};
  constexpr std::byte kEscape{0x0f};
  const auto opcode = std::find(insn.bytes.begin(), insn.bytes.end(), kEscape);
  const bool repeated = std::any_of(insn.bytes.begin(), opcode, [](std::byte b) { return b == kRep || b == kRepne; });
  if (!repeated) return select_exit<ghcb::kExitVmmcall>(insn, op);
  op.fn = op_vmgexit;
  insn.ends_block = true;
  return true;
}

// --- TLB and caches --------------------------------------------------------------------------------------------------

const Op* op_invlpg(Core& core, const Op* op) {
  if (core.cpl != 0) return core.fault(kVectorGp, 0);
  std::uint64_t va = core.address(op);
  const std::uint64_t next = core.rip_after(op);
  if (!core.code64) va &= 0xffff'ffff;
  if (!core.long_mode || canonical(va)) core.invalidate_page(va);
  return core.leave_at(next);
}

// INVPCID (APM vol. 3). dst: register with the type. As MOV CR3 keeps no translation of another PCID but the global
// ones, only those of the present one are there to be dropped.
const Op* op_invpcid(Core& core, const Op* op) {
  enum : std::uint64_t { kAddress, kContext, kAllAndGlobal, kAll };
  constexpr std::uint64_t kPcid = 0xfff;
  struct {
    std::uint64_t pcid;
    std::uint64_t address;
  } wanted{};
  if (core.cpl != 0) return core.fault(kVectorGp, 0);
  const std::uint64_t type = core.code64 ? core.reg<std::uint64_t>(op->dst) : core.reg<std::uint32_t>(op->dst);
  if (type > kAll) return core.fault(kVectorGp, 0);
  if (!core.read_slow(core.address(op), &wanted, sizeof wanted)) return core.fault();
  if (wanted.pcid > kPcid || (type == kAddress && !canonical(wanted.address))) return core.fault(kVectorGp, 0);
  const bool pcids = (core.cr4 & kCr4Pcide) != 0;
  if (type <= kContext && !pcids && wanted.pcid != 0) return core.fault(kVectorGp, 0);
  const bool present = wanted.pcid == (pcids ? core.cr3 & kPcid : 0);
  const std::uint64_t next = core.rip_after(op);
  if (type == kAddress) {
    if (present) core.invalidate_page(wanted.address);
  } else if (type != kContext || present) {
    core.flush_tlb(type != kAllAndGlobal);
  }
  return core.leave_at(next);
}

bool select_invpcid(Insn& insn, Op& op) {
  op.dst = register_offset(insn.op(0).reg.value);
  set_memory(insn, insn.op(1), op);
  op.fn = op_invpcid;
  insn.last = true;
  return true;
}

// CLFLUSH, CLFLUSHOPT, CLWB, CLDEMOTE. A flushed line of private memory reaches DRAM as ciphertext.
template <bool kWriteBack>
const Op* op_flush_line(Core& core, const Op* op) {
  Core::Translation t;
  if (!core.translate(core.address(op), Access::kRead, false, t)) return core.fault();
  if constexpr (kWriteBack) {
    if (t.view == View::kPrivate) core.memory.write_back(t.gpa.page());
  }
  return op + 1;
}

template <bool kWriteBack>
bool select_flush_line(Insn& insn, Op& op) {
  set_memory(insn, insn.op(0), op);
  op.fn = op_flush_line<kWriteBack>;
  return true;
}

// CLZERO: the line that holds the address in rAX.
const Op* op_zero_line(Core& core, const Op* op) {
  constexpr std::size_t kLine = 64;
  static constexpr std::array<std::byte, kLine> kZeros{};
  const std::uint64_t va = core.address(op) & ~std::uint64_t{kLine - 1};
  return core.write_slow(va, kZeros.data(), kZeros.size()) ? op + 1 : core.fault();
}

bool select_zero_line(Insn& insn, Op& op) {
  op.base = 0;  // rAX
  op.address_mask = insn.info.address_width == 64   ? ~std::uint64_t{0}
                    : insn.info.address_width == 32 ? 0xffffffff
                                                    : 0xffff;
  op.segment_register = kDs;
  op.segment = insn.code64() ? kRegZero : static_cast<std::uint8_t>(kRegSegmentBase + kDs);
  op.fn = op_zero_line;
  return true;
}

bool select_invlpg(Insn& insn, Op& op) {
  set_memory(insn, insn.op(0), op);
  op.fn = op_invlpg;
  insn.last = true;
  return true;
}

// --- nothing to do, or nothing there ---------------------------------------------------------------------------------

const Op* op_nothing(Core& /*core*/, const Op* op) { return op + 1; }

bool select_nothing(Insn& /*insn*/, Op& op) {
  op.fn = op_nothing;
  return true;
}

bool select_undefined(Insn& insn, Op& op) {
  op.fn = op_undefined;
  insn.ends_block = true;
  return true;
}

void add_exits(SelectorTable& table) {
  table[ZYDIS_MNEMONIC_CPUID] = select_exit<ghcb::kExitCpuid>;
  table[ZYDIS_MNEMONIC_HLT] = select_exit<ghcb::kExitHlt, Who::kKernel>;
  table[ZYDIS_MNEMONIC_PAUSE] = select_pause;
  table[ZYDIS_MNEMONIC_INVD] = select_exit<ghcb::kExitInvd, Who::kKernel>;
  table[ZYDIS_MNEMONIC_WBINVD] = select_exit<ghcb::kExitWbinvd, Who::kKernel>;  // and WBNOINVD
  table[ZYDIS_MNEMONIC_MONITOR] = select_exit<ghcb::kExitMonitor, Who::kKernelUd>;
  table[ZYDIS_MNEMONIC_MWAIT] = select_exit<ghcb::kExitMwait, Who::kKernelUd>;
  table[ZYDIS_MNEMONIC_MONITORX] = select_exit<ghcb::kExitMonitor>;
  table[ZYDIS_MNEMONIC_MWAITX] = select_exit<ghcb::kExitMwait>;
  table[ZYDIS_MNEMONIC_RDPRU] = select_exit<ghcb::kExitRdpru>;
  table[ZYDIS_MNEMONIC_VMMCALL] = select_vmmcall;
  table[ZYDIS_MNEMONIC_VMRUN] = select_exit<ghcb::kExitVmrun, Who::kSvm>;
  table[ZYDIS_MNEMONIC_VMLOAD] = select_exit<ghcb::kExitVmload, Who::kSvm>;
  table[ZYDIS_MNEMONIC_VMSAVE] = select_exit<ghcb::kExitVmsave, Who::kSvm>;
  table[ZYDIS_MNEMONIC_STGI] = select_exit<ghcb::kExitStgi, Who::kSvm>;
  table[ZYDIS_MNEMONIC_CLGI] = select_exit<ghcb::kExitClgi, Who::kSvm>;
  table[ZYDIS_MNEMONIC_SKINIT] = select_exit<ghcb::kExitSkinit, Who::kSvm>;
  table[ZYDIS_MNEMONIC_INVLPGA] = select_exit<ghcb::kExitInvlpga, Who::kSvm>;
}

void add_undefined(SelectorTable& table) {
  // Of other vendors, of SMM, or never advertised by CPUID here.
  for (const ZydisMnemonic m :
       {ZYDIS_MNEMONIC_UD0,       ZYDIS_MNEMONIC_UD1,      ZYDIS_MNEMONIC_UD2,         ZYDIS_MNEMONIC_RSM,
        ZYDIS_MNEMONIC_GETSEC,    ZYDIS_MNEMONIC_VMCALL,   ZYDIS_MNEMONIC_VMLAUNCH,    ZYDIS_MNEMONIC_VMRESUME,
        ZYDIS_MNEMONIC_VMXOFF,    ZYDIS_MNEMONIC_VMXON,    ZYDIS_MNEMONIC_VMREAD,      ZYDIS_MNEMONIC_VMWRITE,
        ZYDIS_MNEMONIC_VMPTRLD,   ZYDIS_MNEMONIC_VMPTRST,  ZYDIS_MNEMONIC_VMCLEAR,     ZYDIS_MNEMONIC_VMFUNC,
        ZYDIS_MNEMONIC_INVEPT,    ZYDIS_MNEMONIC_INVVPID,  ZYDIS_MNEMONIC_INVLPGB,     ZYDIS_MNEMONIC_TLBSYNC,
        ZYDIS_MNEMONIC_MCOMMIT,   ZYDIS_MNEMONIC_PSMASH,   ZYDIS_MNEMONIC_PVALIDATE,   ZYDIS_MNEMONIC_RMPADJUST,
        ZYDIS_MNEMONIC_RMPUPDATE, ZYDIS_MNEMONIC_ENCLS,    ZYDIS_MNEMONIC_ENCLU,       ZYDIS_MNEMONIC_ENCLV,
        ZYDIS_MNEMONIC_ENQCMD,    ZYDIS_MNEMONIC_ENQCMDS,  ZYDIS_MNEMONIC_PCONFIG,     ZYDIS_MNEMONIC_SERIALIZE,
        ZYDIS_MNEMONIC_WRPKRU,    ZYDIS_MNEMONIC_RDPKRU,   ZYDIS_MNEMONIC_SAVEPREVSSP, ZYDIS_MNEMONIC_SETSSBSY,
        ZYDIS_MNEMONIC_CLRSSBSY,  ZYDIS_MNEMONIC_RSTORSSP, ZYDIS_MNEMONIC_INCSSPD,     ZYDIS_MNEMONIC_INCSSPQ,
        ZYDIS_MNEMONIC_WRSSD,     ZYDIS_MNEMONIC_WRSSQ,    ZYDIS_MNEMONIC_WRUSSD,      ZYDIS_MNEMONIC_WRUSSQ,
        ZYDIS_MNEMONIC_UMONITOR,  ZYDIS_MNEMONIC_UMWAIT,   ZYDIS_MNEMONIC_TPAUSE,      ZYDIS_MNEMONIC_XBEGIN,
        ZYDIS_MNEMONIC_XEND,      ZYDIS_MNEMONIC_XABORT,   ZYDIS_MNEMONIC_XTEST,       ZYDIS_MNEMONIC_MOVDIR64B,
        ZYDIS_MNEMONIC_MOVDIRI,   ZYDIS_MNEMONIC_PTWRITE}) {
    table[m] = select_undefined;
  }
}

void add_caches(SelectorTable& table) {
  table[ZYDIS_MNEMONIC_INVLPG] = select_invlpg;
  table[ZYDIS_MNEMONIC_INVPCID] = select_invpcid;
  table[ZYDIS_MNEMONIC_CLFLUSH] = table[ZYDIS_MNEMONIC_CLFLUSHOPT] = select_flush_line<true>;
  table[ZYDIS_MNEMONIC_CLWB] = select_flush_line<false>;
  table[ZYDIS_MNEMONIC_CLZERO] = select_zero_line;
  // Memory accesses happen in program order. Shadow stacks do not exist: RDSSP and ENDBR are no-operations.
  for (const ZydisMnemonic m :
       {ZYDIS_MNEMONIC_LFENCE, ZYDIS_MNEMONIC_MFENCE, ZYDIS_MNEMONIC_SFENCE, ZYDIS_MNEMONIC_ENDBR32,
        ZYDIS_MNEMONIC_ENDBR64, ZYDIS_MNEMONIC_RDSSPD, ZYDIS_MNEMONIC_RDSSPQ, ZYDIS_MNEMONIC_CLDEMOTE,
        ZYDIS_MNEMONIC_PREFETCH, ZYDIS_MNEMONIC_PREFETCHNTA, ZYDIS_MNEMONIC_PREFETCHT0, ZYDIS_MNEMONIC_PREFETCHT1,
        ZYDIS_MNEMONIC_PREFETCHT2, ZYDIS_MNEMONIC_PREFETCHW, ZYDIS_MNEMONIC_PREFETCHWT1}) {
    table[m] = select_nothing;
  }
}

// Names that are also integer instructions', whose selectors have declined these forms.
bool select_system_move(Insn& insn, Op& op) {
  for (const unsigned n : {0U, 1U}) {
    if (!insn.is_reg(n)) continue;
    switch (ZydisRegisterGetClass(insn.op(n).reg.value)) {
      case ZYDIS_REGCLASS_SEGMENT:
        return select_segment_move(insn, op);
      case ZYDIS_REGCLASS_CONTROL:
      case ZYDIS_REGCLASS_DEBUG:
        return select_control_register(insn, op);
      default:
        break;
    }
  }
  return false;
}

void add_shared_mnemonics(SelectorTable& table) {
  table[ZYDIS_MNEMONIC_JMP] = table[ZYDIS_MNEMONIC_CALL] = table[ZYDIS_MNEMONIC_RET] = select_far_branch;
  table[ZYDIS_MNEMONIC_POP] = select_segment_pop;
  table[ZYDIS_MNEMONIC_MOV] = select_system_move;
}

}  // namespace

void add_system(SelectorTable& table) {
  add_shared_mnemonics(table);
  add_exits(table);
  add_undefined(table);
  add_caches(table);
  add_far_returns(table);
  add_system_calls(table);
  add_segments(table);
  add_descriptors(table);
  add_control_registers(table);
  add_msr(table);
  add_io(table);
  add_flags(table);
}

}  // namespace sevisor::emulator
