// Far RET and IRET (APM vol. 2, 4.11 and 8.9; vol. 3).
#include "emulator/cpu/intercepts.hpp"
#include "emulator/cpu/system.hpp"

namespace sevisor::emulator {

namespace {

// CS of RET and IRET, checked.
bool check_return_code(Core& core, std::uint16_t selector, std::uint64_t rip, Descriptor& cs) {
  if (null_selector(selector)) return core.raise(kVectorGp, 0);
  if (!read_descriptor(core, selector, cs)) return false;
  const unsigned rpl = selector & kSelectorRpl;
  const bool privileged = cs.conforming() ? cs.dpl() > rpl : cs.dpl() != rpl;
  if (rpl < core.cpl || !cs.code() || privileged || bad_code_size(core, cs)) {
    return core.raise(kVectorGp, selector_error(selector));
  }
  if (!cs.present()) return core.raise(kVectorNp, selector_error(selector));
  return check_code_target(core, cs, rip) && mark_accessed(core, cs);
}

// SS of a return: a null one is good for 64-bit code that is not user's.
bool check_return_stack(Core& core, std::uint16_t selector, unsigned cpl, const Descriptor& cs, Descriptor& ss) {
  if (null_selector(selector)) {
    const bool accepted = to_64bit(core, cs) && cpl != 3 && (selector & kSelectorRpl) == cpl;
    ss.raw = 0;
    return accepted ? true : core.raise(kVectorGp, 0);
  }
  return check_stack_segment(core, selector, cpl, kVectorGp, 0, ss);
}

void set_return_stack(Core& core, std::uint16_t selector, const Descriptor& cs, const Descriptor& ss,
                      std::uint64_t rsp) {
  if (null_selector(selector)) {
    set_null_segment(core, kSs, selector);
  } else {
    set_segment(core, kSs, selector, ss);
  }
  if (to_64bit(core, cs)) {
    core.gpr[kRegRsp] = rsp;
  } else if (ss.big()) {
    core.gpr[kRegRsp] = rsp & 0xffff'ffff;
  } else {
    core.gpr[kRegRsp] = (core.gpr[kRegRsp] & ~std::uint64_t{0xffff}) | (rsp & 0xffff);
  }
}

// imm: bytes of parameters to drop.
const Op* op_far_return(Core& core, const Op* op) {
  const unsigned width = op->bits;
  Stack stack = Stack::present(core);
  std::uint64_t rip = 0;
  std::uint64_t popped = 0;
  if (!stack.pop(rip, width) || !stack.pop(popped, width)) return core.fault();
  const auto selector = static_cast<std::uint16_t>(popped);
  if (!protected_mode(core)) {
    if (rip > kRealModeCodeLimit) return core.fault(kVectorGp, 0);
    stack.skip(op->imm);
    stack.keep();
    return jump_real_mode(core, selector, rip);
  }
  Descriptor cs;
  if (!check_return_code(core, selector, rip, cs)) return core.fault();
  const unsigned cpl = selector & kSelectorRpl;
  stack.skip(op->imm);
  if (cpl == core.cpl) {
    stack.keep();
    set_code_segment(core, selector, cpl, cs);
    return go_on(core, rip);
  }
  std::uint64_t rsp = 0;
  if (!stack.pop(rsp, width) || !stack.pop(popped, width)) return core.fault();
  const auto ss_selector = static_cast<std::uint16_t>(popped);
  Descriptor ss;
  if (!check_return_stack(core, ss_selector, cpl, cs, ss)) return core.fault();
  set_code_segment(core, selector, cpl, cs);
  set_return_stack(core, ss_selector, cs, ss, rsp + op->imm);
  drop_privileged_segments(core);
  return go_on(core, rip);
}

// RFLAGS that IRET loads; the others stay. `width`: bytes of the image.
void load_return_flags(Core& core, std::uint64_t image, unsigned width, unsigned cpl_before) {
  std::uint64_t changes = kStatusFlags | kFlagTf | kFlagDf | kFlagNt;
  if (width > 2) changes |= kFlagAc | kFlagId;
  if (width > 2 && core.breakpoints_armed) changes |= kFlagRf;  // means nothing otherwise
  if (cpl_before <= io_privilege(core)) changes |= kFlagIf;
  if (cpl_before == 0) {
    changes |= kFlagIopl;
    if (width > 2) changes |= kFlagVif | kFlagVip;
  }
  core.set_rflags((core.rflags() & ~changes) | (image & changes));
}

const Op* return_real_mode(Core& core, const Op* op) {
  const unsigned width = op->bits;
  Stack stack = Stack::present(core);
  std::uint64_t rip = 0;
  std::uint64_t cs = 0;
  std::uint64_t image = 0;
  if (!stack.pop(rip, width) || !stack.pop(cs, width) || !stack.pop(image, width)) return core.fault();
  if (rip > kRealModeCodeLimit) return core.fault(kVectorGp, 0);
  stack.keep();
  load_return_flags(core, image, width, 0);
  return jump_real_mode(core, static_cast<std::uint16_t>(cs), rip);
}

const Op* interrupt_return(Core& core, const Op* op) {
  if (!protected_mode(core)) return return_real_mode(core, op);
  if ((core.system_flags & kFlagNt) != 0) {
    if (core.long_mode) return core.fault(kVectorGp, 0);
    return intercept<ghcb::kExitTaskSwitch>(core, op);
  }
  const unsigned width = op->bits;
  Stack stack = Stack::present(core);
  std::uint64_t rip = 0;
  std::uint64_t popped = 0;
  std::uint64_t image = 0;
  if (!stack.pop(rip, width) || !stack.pop(popped, width) || !stack.pop(image, width)) return core.fault();
  // Virtual-8086 mode is not there: nothing of this century enters it.
  if ((image & kFlagVm) != 0 && core.cpl == 0 && !core.long_mode) return op_unimplemented(core, op);
  const auto selector = static_cast<std::uint16_t>(popped);
  Descriptor cs;
  if (!check_return_code(core, selector, rip, cs)) return core.fault();
  const unsigned cpl = selector & kSelectorRpl;
  const unsigned cpl_before = core.cpl;
  const bool pops_stack = core.code64 || cpl != core.cpl;
  if (pops_stack) {
    std::uint64_t rsp = 0;
    if (!stack.pop(rsp, width) || !stack.pop(popped, width)) return core.fault();
    const auto ss_selector = static_cast<std::uint16_t>(popped);
    Descriptor ss;
    if (!check_return_stack(core, ss_selector, cpl, cs, ss)) return core.fault();
    set_return_stack(core, ss_selector, cs, ss, rsp);
  } else {
    stack.keep();
  }
  load_return_flags(core, image, width, cpl_before);
  set_code_segment(core, selector, cpl, cs);
  if (cpl != cpl_before) drop_privileged_segments(core);
  if (core.config.observer != nullptr) core.config.observer->returned(core.now(op), rip, core.gpr[kRegRsp]);
  return go_on(core, rip);
}

const Op* op_iret(Core& core, const Op* op) {
  const Op* const target = interrupt_return(core, op);
  const bool returned = target != nullptr || core.reason == Leave::kLookup;
  if (!returned || !core.controls.iret_window) return target;
  core.iret_done = true;
  return core.leave_at(core.rip);
}

bool select_iret(Insn& insn, Op& op) {
  op.fn = op_iret;
  set_size(insn, op);
  insn.ends_block = true;
  return true;
}

}  // namespace

bool select_far_return(Insn& insn, Op& op) {
  set_size(insn, op);
  op.imm = insn.info.operand_count_visible != 0 ? insn.op(0).imm.value.u & 0xffff : 0;
  op.fn = op_far_return;
  insn.ends_block = true;
  return true;
}

void add_far_returns(SelectorTable& table) {
  table[ZYDIS_MNEMONIC_IRET] = table[ZYDIS_MNEMONIC_IRETD] = table[ZYDIS_MNEMONIC_IRETQ] = select_iret;
}

}  // namespace sevisor::emulator
