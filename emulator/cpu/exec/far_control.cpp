// Far JMP and CALL, and the call gates they go through (APM vol. 2, 4.11 and 6.1; vol. 3).
#include "emulator/cpu/intercepts.hpp"
#include "emulator/cpu/system.hpp"

namespace sevisor::emulator {

bool check_code_target(Core& core, const Descriptor& cs, std::uint64_t rip) noexcept {
  const bool good = to_64bit(core, cs) ? canonical(rip) : rip <= cs.limit();
  return good ? true : core.raise(kVectorGp, 0);
}

const Op* jump_real_mode(Core& core, std::uint16_t selector, std::uint64_t offset) noexcept {
  core.seg[kCs].selector = selector;
  core.segment_base(kCs) = std::uint64_t{selector} << 4;
  return go_on(core, offset);
}

namespace {

// The code segment of a direct far transfer, with the checks of JMP and CALL.
bool check_direct_target(Core& core, std::uint16_t selector, Descriptor& cs, std::uint64_t offset) {
  const std::uint32_t error = selector_error(selector);
  const unsigned rpl = selector & kSelectorRpl;
  const bool privileged = cs.conforming() ? cs.dpl() > core.cpl : rpl > core.cpl || cs.dpl() != core.cpl;
  if (bad_code_size(core, cs) || privileged) return core.raise(kVectorGp, error);
  if (!cs.present()) return core.raise(kVectorNp, error);
  return check_code_target(core, cs, offset) && mark_accessed(core, cs);
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
  return check_code_target(core, cs, out.offset) && mark_accessed(core, out.cs);
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

}  // namespace

bool select_far_branch(Insn& insn, Op& op) {
  if (insn.info.meta.branch_type != ZYDIS_BRANCH_TYPE_FAR) return false;
  if (insn.info.mnemonic == ZYDIS_MNEMONIC_RET) return select_far_return(insn, op);
  const bool call = insn.info.mnemonic == ZYDIS_MNEMONIC_CALL;
  set_size(insn, op);
  insn.ends_block = true;
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

}  // namespace sevisor::emulator
