// Far transfers of control: JMP, CALL, RET, IRET, INTn, SYSCALL, SYSRET, SYSENTER, SYSEXIT (APM vol. 2, 4.11, 6.1, 8.7
// to 8.9; vol. 3).
#include "emulator/cpu/intercepts.hpp"
#include "emulator/cpu/system.hpp"

namespace sevisor::emulator {

namespace {

constexpr std::uint16_t kRealModeCodeLimit = 0xffff;

bool bad_code_size(const Core& core, const Descriptor& cs) { return core.long_mode && cs.long_code() && cs.big(); }
bool to_64bit(const Core& core, const Descriptor& cs) { return core.long_mode && cs.long_code(); }

// Is `rip` one that this code segment can run at? #GP(0) otherwise.
bool check_target(Core& core, const Descriptor& cs, std::uint64_t rip) {
  const bool good = to_64bit(core, cs) ? canonical(rip) : rip <= cs.limit();
  return good ? true : core.raise(kVectorGp, 0);
}

const Op* jump_real_mode(Core& core, std::uint16_t selector, std::uint64_t offset) {
  core.seg[kCs].selector = selector;
  core.segment_base(kCs) = std::uint64_t{selector} << 4;
  return go_on(core, offset);
}

// The code segment of a direct far transfer, with the checks of JMP and CALL.
bool check_direct_target(Core& core, std::uint16_t selector, Descriptor& cs, std::uint64_t offset) {
  const std::uint32_t error = selector_error(selector);
  const unsigned rpl = selector & kSelectorRpl;
  const bool privileged = cs.conforming() ? cs.dpl() > core.cpl : rpl > core.cpl || cs.dpl() != core.cpl;
  if (bad_code_size(core, cs) || privileged) return core.raise(kVectorGp, error);
  if (!cs.present()) return core.raise(kVectorNp, error);
  return check_target(core, cs, offset) && mark_accessed(core, cs);
}

// What a call gate leads to.
struct GateTarget {
  Descriptor cs;
  std::uint16_t selector = 0;
  std::uint64_t offset = 0;
  unsigned width = 0;  // bytes of a pushed item
  unsigned parameters = 0;
};

bool read_call_gate(Core& core, std::uint16_t selector, const Descriptor& gate, bool is_call, GateTarget& out) {
  const std::uint32_t error = selector_error(selector);
  if (gate.dpl() < core.cpl || gate.dpl() < (selector & kSelectorRpl)) return core.raise(kVectorGp, error);
  if (!gate.present()) return core.raise(kVectorNp, error);
  out.selector = static_cast<std::uint16_t>(gate.raw >> 16);
  out.offset = gate.raw & 0xffff;
  if (gate.type() != kTypeCallGate16) out.offset |= gate.raw >> 32 & 0xffff'0000;
  out.width = gate.type() == kTypeCallGate16 ? 2 : 4;
  out.parameters = static_cast<unsigned>(gate.raw >> 32) & 0x1f;
  if (core.long_mode) {
    constexpr std::uint64_t kUpperType = std::uint64_t{0x1f} << 8;  // must be 0, so that no selector points here
    std::uint64_t upper = 0;
    if (!read_upper(core, gate, selector, upper)) return false;
    if ((upper & kUpperType) != 0) return core.raise(kVectorGp, error);
    out.offset |= upper << 32;
    out.width = 8;
    out.parameters = 0;
  }
  if (null_selector(out.selector)) return core.raise(kVectorGp, 0);
  if (!read_descriptor(core, out.selector, out.cs)) return false;
  const std::uint32_t cs_error = selector_error(out.selector);
  const Descriptor& cs = out.cs;
  bool bad = !cs.code() || cs.dpl() > core.cpl || (core.long_mode && (!cs.long_code() || cs.big()));
  if (!is_call && !cs.conforming() && cs.dpl() != core.cpl) bad = true;
  if (bad) return core.raise(kVectorGp, cs_error);
  if (!cs.present()) return core.raise(kVectorNp, cs_error);
  return check_target(core, cs, out.offset) && mark_accessed(core, out.cs);
}

// CALL through a gate to more privilege: a new stack from the TSS, with the parameters copied.
bool push_to_inner_stack(Core& core, const Op* op, const GateTarget& target, unsigned cpl) {
  const std::uint64_t return_rip = core.rip_after(op);
  const unsigned width = target.width;
  if (core.long_mode) {
    std::uint64_t rsp = 0;
    if (!long_stack_pointer(core, cpl, 0, rsp)) return false;
    Stack stack = Stack::in_long_mode(core, rsp, 0, true);
    if (!stack.push(core.seg[kSs].selector, width) || !stack.push(core.gpr[kRegRsp], width) ||
        !stack.push(core.seg[kCs].selector, width) || !stack.push(return_rip, width)) {
      return false;
    }
    set_null_segment(core, kSs, static_cast<std::uint16_t>(cpl));
    stack.keep();
    return true;
  }
  std::uint16_t ss_selector = 0;
  std::uint32_t esp = 0;
  Descriptor ss;
  if (!legacy_inner_stack(core, cpl, 0, ss_selector, esp)) return false;
  if (!check_stack_segment(core, ss_selector, cpl, kVectorTs, 0, ss)) return false;
  std::array<std::uint64_t, 31> parameters{};
  Stack old_stack = Stack::present(core);
  for (unsigned i = 0; i < target.parameters; ++i) {
    if (!old_stack.pop(parameters[i], width)) return false;
  }
  Stack stack = Stack::inner(core, ss, esp, selector_error(ss_selector), true);
  if (!stack.push(core.seg[kSs].selector, width) || !stack.push(core.gpr[kRegRsp], width)) return false;
  for (unsigned i = target.parameters; i-- > 0;) {
    if (!stack.push(parameters[i], width)) return false;
  }
  if (!stack.push(core.seg[kCs].selector, width) || !stack.push(return_rip, width)) return false;
  set_segment(core, kSs, ss_selector, ss);
  stack.keep();
  return true;
}

const Op* through_call_gate(Core& core, const Op* op, std::uint16_t selector, const Descriptor& gate, bool is_call) {
  GateTarget target;
  if (!read_call_gate(core, selector, gate, is_call, target)) return core.fault();
  unsigned cpl = core.cpl;
  if (is_call) {
    if (!target.cs.conforming() && target.cs.dpl() < core.cpl) {
      cpl = target.cs.dpl();
      if (!push_to_inner_stack(core, op, target, cpl)) return core.fault();
    } else {
      Stack stack = Stack::present(core);
      if (!stack.push(core.seg[kCs].selector, target.width) || !stack.push(core.rip_after(op), target.width)) {
        return core.fault();
      }
      stack.keep();
    }
  }
  set_code_segment(core, target.selector, cpl, target.cs);
  return go_on(core, target.offset);
}

// JMP and CALL. op->bits: operand size in bytes.
const Op* far_transfer(Core& core, const Op* op, std::uint16_t selector, std::uint64_t offset, bool is_call) {
  if (!protected_mode(core)) {
    if (offset > kRealModeCodeLimit) return core.fault(kVectorGp, 0);
    if (is_call) {
      Stack stack = Stack::present(core);
      if (!stack.push(core.seg[kCs].selector, op->bits) || !stack.push(core.rip_after(op), op->bits)) {
        return core.fault();
      }
      stack.keep();
    }
    return jump_real_mode(core, selector, offset);
  }
  if (null_selector(selector)) return core.fault(kVectorGp, 0);
  Descriptor d;
  if (!read_descriptor(core, selector, d)) return core.fault();
  if (d.system()) {
    const unsigned type = d.type();
    if (type == kTypeCallGate || (type == kTypeCallGate16 && !core.long_mode)) {
      return through_call_gate(core, op, selector, d, is_call);
    }
    const bool task = type == kTypeTss || type == kTypeTss16 || type == kTypeTaskGate;
    if (!task || core.long_mode) return core.fault(kVectorGp, selector_error(selector));
    if (d.dpl() < core.cpl || d.dpl() < (selector & kSelectorRpl)) {
      return core.fault(kVectorGp, selector_error(selector));
    }
    if (!d.present()) return core.fault(kVectorNp, selector_error(selector));
    return intercept<ghcb::kExitTaskSwitch>(core, op);
  }
  if (!d.code()) return core.fault(kVectorGp, selector_error(selector));
  if (!check_direct_target(core, selector, d, offset)) return core.fault();
  if (is_call) {
    Stack stack = Stack::present(core);
    if (!stack.push(core.seg[kCs].selector, op->bits) || !stack.push(core.rip_after(op), op->bits)) {
      return core.fault();
    }
    stack.keep();
  }
  set_code_segment(core, selector, core.cpl, d);
  return go_on(core, offset);
}

// disp: selector; imm: offset.
template <bool kCall>
const Op* op_far_direct(Core& core, const Op* op) {
  return far_transfer(core, op, static_cast<std::uint16_t>(op->disp), op->imm, kCall);
}

template <bool kCall>
const Op* op_far_indirect(Core& core, const Op* op) {
  std::array<std::byte, 10> pointer{};
  const unsigned width = op->bits;
  if (!core.read_slow(core.address(op), pointer.data(), width + 2)) return core.fault();
  std::uint64_t offset = load<std::uint64_t>(pointer.data());
  if (width < 8) offset &= (std::uint64_t{1} << (8 * width)) - 1;
  return far_transfer(core, op, load<std::uint16_t>(pointer.data() + width), offset, kCall);
}

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
  return check_target(core, cs, rip) && mark_accessed(core, cs);
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

const Op* op_iret(Core& core, const Op* op) {
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
  return go_on(core, rip);
}

// --- software interrupts
// ----------------------------------------------------------------------------------------------

const Op* software_interrupt(Core& core, const Op* op, std::uint8_t vector) {
  const Event event{.vector = vector, .software = true, .return_rip = core.rip_after(op)};
  if (!enter_event(core, event)) return core.fault();
  core.debug_shadow_on = true;  // the gate cleared TF: no trap after this instruction
  return core.leave(Leave::kLookup);
}

const Op* op_int(Core& core, const Op* op) { return software_interrupt(core, op, static_cast<std::uint8_t>(op->imm)); }
const Op* op_int3(Core& core, const Op* op) { return software_interrupt(core, op, kVectorBp); }
const Op* op_into(Core& core, const Op* op) {
  return core.flags.of() ? software_interrupt(core, op, kVectorOf) : core.leave_at(core.rip_after(op));
}
const Op* op_int1(Core& core, const Op* op) {
  core.rip = core.rip_after(op);
  core.fault_info = Fault{.vector = kVectorDb, .trap = true};
  return core.fault();
}

// --- fast system calls
// ------------------------------------------------------------------------------------------------

constexpr unsigned kStarSyscall = 32;
constexpr unsigned kStarSysret = 48;
constexpr std::uint16_t kStackAfterCode = 8;        // SS follows CS in the GDT
constexpr std::uint16_t kSysret64AfterCompat = 16;  // 64-bit CS follows the 32-bit one and SS
constexpr std::uint16_t kSysexitCode = 16;
constexpr std::uint16_t kSysexitStack = 24;

const Op* op_syscall(Core& core, const Op* op) {
  if ((core.efer & kEferSce) == 0 || !protected_mode(core)) return core.fault(kVectorUd);
  const auto selector = static_cast<std::uint16_t>(core.msr.star >> kStarSyscall & kSelectorError);
  const std::uint64_t return_rip = core.rip_after(op);
  std::uint64_t target = core.msr.star & 0xffff'ffff;
  const bool from_64bit = core.code64;
  core.gpr[1] = return_rip;
  if (core.long_mode) {
    target = from_64bit ? core.msr.lstar : core.msr.cstar;
    core.gpr[11] = core.rflags();
    core.set_rflags(core.rflags() & ~core.msr.sfmask & ~kFlagRf);
  } else {
    core.system_flags &= ~(kFlagIf | kFlagVm | kFlagRf);
  }
  set_flat_code(core, selector, 0, core.long_mode);
  set_flat_stack(core, static_cast<std::uint16_t>(selector + kStackAfterCode), 0);
  core.cpl = 0;
  core.debug_shadow_on = (core.system_flags & kFlagTf) == 0;  // a masked TF: no trap after this instruction
  return go_on(core, target);
}

// op->bits: 8 returns to 64-bit code.
const Op* op_sysret(Core& core, const Op* op) {
  if ((core.efer & kEferSce) == 0) return core.fault(kVectorUd);
  if (!protected_mode(core) || core.cpl != 0) return core.fault(kVectorGp, 0);
  const auto base = static_cast<std::uint16_t>(core.msr.star >> kStarSysret);
  const bool to_long = op->bits == 8;
  const std::uint64_t target = to_long ? core.gpr[1] : core.gpr[1] & 0xffff'ffff;
  const auto code = static_cast<std::uint16_t>(to_long ? base + kSysret64AfterCompat : base);
  set_flat_code(core, code | kSelectorRpl, 3, to_long);
  set_flat_stack(core, static_cast<std::uint16_t>(base + kStackAfterCode) | kSelectorRpl, 3);
  if (core.long_mode) {
    constexpr std::uint64_t kImplemented =
        kStatusFlags | kFlagTf | kFlagIf | kFlagDf | kFlagIopl | kFlagNt | kFlagAc | kFlagVif | kFlagVip | kFlagId;
    core.set_rflags(core.gpr[11] & kImplemented);
  } else {
    core.system_flags |= kFlagIf;
  }
  core.cpl = 3;
  return go_on(core, target);
}

// AMD processors have SYSENTER and SYSEXIT in legacy mode only (APM vol. 3).
const Op* op_sysenter(Core& core, const Op* /*op*/) {
  if (core.long_mode) return core.fault(kVectorUd);
  const auto selector = static_cast<std::uint16_t>(core.msr.sysenter_cs & kSelectorError);
  if (!protected_mode(core) || selector == 0) return core.fault(kVectorGp, 0);
  core.system_flags &= ~(kFlagIf | kFlagVm | kFlagRf);
  set_flat_code(core, selector, 0, false);
  set_flat_stack(core, static_cast<std::uint16_t>(selector + kStackAfterCode), 0);
  core.cpl = 0;
  core.gpr[kRegRsp] = core.msr.sysenter_esp & 0xffff'ffff;
  return go_on(core, core.msr.sysenter_eip & 0xffff'ffff);
}

const Op* op_sysexit(Core& core, const Op* /*op*/) {
  if (core.long_mode) return core.fault(kVectorUd);
  const auto base = static_cast<std::uint16_t>(core.msr.sysenter_cs & kSelectorError);
  if (!protected_mode(core) || core.cpl != 0 || base == 0) return core.fault(kVectorGp, 0);
  set_flat_code(core, static_cast<std::uint16_t>(base + kSysexitCode) | kSelectorRpl, 3, false);
  set_flat_stack(core, static_cast<std::uint16_t>(base + kSysexitStack) | kSelectorRpl, 3);
  core.cpl = 3;
  core.gpr[kRegRsp] = core.gpr[1] & 0xffff'ffff;
  return go_on(core, core.gpr[2] & 0xffff'ffff);
}

// --- selectors
// --------------------------------------------------------------------------------------------------------

template <Handler kHandler>
bool select_plain(Insn& insn, Op& op) {
  op.fn = kHandler;
  set_size(insn, op);
  insn.ends_block = true;
  return true;
}

bool select_int(Insn& insn, Op& op) {
  op.imm = insn.op(0).imm.value.u & 0xff;
  return select_plain<op_int>(insn, op);
}

}  // namespace

bool select_far_branch(Insn& insn, Op& op) {
  if (insn.info.meta.branch_type != ZYDIS_BRANCH_TYPE_FAR) return false;
  const bool call = insn.info.mnemonic == ZYDIS_MNEMONIC_CALL;
  set_size(insn, op);
  insn.ends_block = true;
  if (insn.info.mnemonic == ZYDIS_MNEMONIC_RET) {
    op.imm = insn.info.operand_count_visible != 0 ? insn.op(0).imm.value.u & 0xffff : 0;
    op.fn = op_far_return;
    return true;
  }
  if (insn.is_mem(0)) {
    set_memory(insn, insn.op(0), op);
    op.fn = call ? op_far_indirect<true> : op_far_indirect<false>;
    return true;
  }
  op.disp = insn.op(0).ptr.segment;
  op.imm = insn.op(0).ptr.offset;
  op.fn = call ? op_far_direct<true> : op_far_direct<false>;
  return true;
}

void add_far_control(SelectorTable& table) {
  table[ZYDIS_MNEMONIC_IRET] = select_plain<op_iret>;
  table[ZYDIS_MNEMONIC_IRETD] = select_plain<op_iret>;
  table[ZYDIS_MNEMONIC_IRETQ] = select_plain<op_iret>;
  table[ZYDIS_MNEMONIC_INT] = select_int;
  table[ZYDIS_MNEMONIC_INT3] = select_plain<op_int3>;
  table[ZYDIS_MNEMONIC_INTO] = select_plain<op_into>;
  table[ZYDIS_MNEMONIC_INT1] = select_plain<op_int1>;
  table[ZYDIS_MNEMONIC_SYSCALL] = select_plain<op_syscall>;
  table[ZYDIS_MNEMONIC_SYSRET] = select_plain<op_sysret>;
  table[ZYDIS_MNEMONIC_SYSENTER] = select_plain<op_sysenter>;
  table[ZYDIS_MNEMONIC_SYSEXIT] = select_plain<op_sysexit>;
}

}  // namespace sevisor::emulator
