// The system flags of RFLAGS: PUSHF, POPF, CLI, STI, CLAC, STAC (APM vol. 2, 3.1.6; vol. 3).
#include "emulator/cpu/system.hpp"

namespace sevisor::emulator {

namespace {

// bits: bytes pushed.
const Op* op_pushf(Core& core, const Op* op) {
  Stack stack = Stack::present(core);
  if (!stack.push(core.rflags() & ~(kFlagRf | kFlagVm), op->bits)) return core.fault();
  stack.keep();
  return op + 1;
}

const Op* op_popf(Core& core, const Op* op) {
  Stack stack = Stack::present(core);
  std::uint64_t image = 0;
  if (!stack.pop(image, op->bits)) return core.fault();
  std::uint64_t changes = kStatusFlags | kFlagTf | kFlagDf | kFlagNt;
  if (op->bits > 2) changes |= kFlagAc | kFlagId;
  if (core.cpl == 0 || !protected_mode(core)) changes |= kFlagIopl;
  if (core.cpl <= io_privilege(core) || !protected_mode(core)) changes |= kFlagIf;
  const std::uint64_t before = core.system_flags;
  core.set_rflags((core.rflags() & ~changes) | (image & changes));
  stack.keep();
  const std::uint64_t changed = before ^ core.system_flags;
  if ((changed & (kFlagTf | kFlagAc)) != 0) core.update_mode();
  const bool window = core.controls.interrupt_window && (core.system_flags & kFlagIf) != 0;
  if (window || (changed & kFlagTf) != 0) return core.leave_at(core.rip_after(op));
  return op + 1;
}

bool may_change_if(const Core& core) { return !protected_mode(core) || core.cpl <= io_privilege(core); }

const Op* op_cli(Core& core, const Op* op) {
  if (!may_change_if(core)) return core.fault(kVectorGp, 0);
  core.system_flags &= ~kFlagIf;
  return op + 1;
}

const Op* op_sti(Core& core, const Op* op) {
  if (!may_change_if(core)) return core.fault(kVectorGp, 0);
  if ((core.system_flags & kFlagIf) != 0) return op + 1;
  core.system_flags |= kFlagIf;
  return shadow_next(core, op);
}

template <bool kSet>
const Op* op_alignment_check(Core& core, const Op* op) {
  if (core.cpl != 0) return core.fault(kVectorUd);
  core.system_flags = kSet ? core.system_flags | kFlagAc : core.system_flags & ~kFlagAc;
  core.select_tlb();
  return op + 1;
}

template <Handler kHandler>
bool select_plain(Insn& insn, Op& op) {
  set_size(insn, op);
  op.fn = kHandler;
  return true;
}

}  // namespace

void add_flags(SelectorTable& table) {
  for (const ZydisMnemonic m : {ZYDIS_MNEMONIC_PUSHF, ZYDIS_MNEMONIC_PUSHFD, ZYDIS_MNEMONIC_PUSHFQ}) {
    table[m] = select_plain<op_pushf>;
  }
  for (const ZydisMnemonic m : {ZYDIS_MNEMONIC_POPF, ZYDIS_MNEMONIC_POPFD, ZYDIS_MNEMONIC_POPFQ}) {
    table[m] = select_plain<op_popf>;
  }
  table[ZYDIS_MNEMONIC_CLI] = select_plain<op_cli>;
  table[ZYDIS_MNEMONIC_STI] = select_plain<op_sti>;
  table[ZYDIS_MNEMONIC_CLAC] = select_plain<op_alignment_check<false>>;
  table[ZYDIS_MNEMONIC_STAC] = select_plain<op_alignment_check<true>>;
}

}  // namespace sevisor::emulator
