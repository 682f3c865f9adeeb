// PUSH, POP, PUSHA, POPA, ENTER, LEAVE. Segment registers: PUSH here, POP with the loads of exec_system.
#include "emulator/cpu/exec/integer.hpp"
#include "emulator/cpu/exec/stack.hpp"

namespace sevisor::emulator {

namespace {

template <class T, class S, At kSrc>
const Op* push_operand(Core& core, const Op* op) {
  T value{};
  if (!read_source<T, kSrc>(core, op, value) || !push<T, S>(core, value)) return core.fault();
  return next(core, op);
}

template <class T, class S>
const Op* push_segment(Core& core, const Op* op) {
  if (!push<T, S>(core, core.seg[op->src].selector)) return core.fault();
  return next(core, op);
}

bool select_push(Insn& insn, Op& op) {
  return with_stack(insn, [&]<class T, class S>() {
    if (insn.is_imm(0)) {
      op.imm = insn.op(0).imm.value.u;
      op.fn = push_operand<T, S, At::kImm>;
      return true;
    }
    if (insn.is_reg(0) && ZydisRegisterGetClass(insn.op(0).reg.value) == ZYDIS_REGCLASS_SEGMENT) {
      op.src = segment_number(insn.op(0).reg.value);
      op.fn = push_segment<T, S>;
      return true;
    }
    return with_place(insn, 0, &Op::src, op, [&]<At kSrc>() {
      op.fn = push_operand<T, S, kSrc>;
      return true;
    });
  });
}

template <class T, class S, At kDst>
const Op* pop_operand(Core& core, const Op* op) {
  T value{};
  const S sp = core.reg<S>(kOffsetRsp);
  if (!read_stack<T, S>(core, sp, value)) return core.fault();
  const std::uint64_t before = core.gpr[kRegRsp];
  core.set_reg<S>(kOffsetRsp, static_cast<S>(sp + sizeof(T)));
  // An address made with rSP takes its new value; POP rSP keeps what was popped.
  if (!write_operand<T, kDst>(core, op, value)) {
    core.gpr[kRegRsp] = before;
    return core.fault();
  }
  return next(core, op);
}

bool select_pop(Insn& insn, Op& op) {
  return with_stack(insn, [&]<class T, class S>() {
    return with_place(insn, 0, &Op::dst, op, [&]<At kDst>() {
      op.fn = pop_operand<T, S, kDst>;
      return true;
    });
  });
}

constexpr unsigned kPushedRegisters = 8;

template <class T, class S>
const Op* push_all(Core& core, const Op* op) {
  S sp = core.reg<S>(kOffsetRsp);
  for (unsigned n = 0; n < kPushedRegisters; ++n) {
    sp = static_cast<S>(sp - sizeof(T));
    if (!write_stack<T, S>(core, sp, static_cast<T>(core.gpr[n]))) return core.fault();
  }
  core.set_reg<S>(kOffsetRsp, sp);
  return next(core, op);
}

template <class T, class S>
const Op* pop_all(Core& core, const Op* op) {
  S sp = core.reg<S>(kOffsetRsp);
  std::array<T, kPushedRegisters> values{};
  for (unsigned n = kPushedRegisters; n-- > 0;) {
    if (!read_stack<T, S>(core, sp, values[n])) return core.fault();
    sp = static_cast<S>(sp + sizeof(T));
  }
  core.set_reg<S>(kOffsetRsp, sp);
  for (unsigned n = 0; n < kPushedRegisters; ++n) {
    if (n != kRegRsp) core.set_reg<T>(static_cast<std::uint8_t>(n * 8), values[n]);
  }
  return next(core, op);
}

template <class T, class S>
const Op* leave_frame(Core& core, const Op* op) {
  const S frame = core.reg<S>(kOffsetRbp);
  T value{};
  if (!read_stack<T, S>(core, frame, value)) return core.fault();
  core.set_reg<S>(kOffsetRsp, static_cast<S>(frame + sizeof(T)));
  core.set_reg<T>(kOffsetRbp, value);
  return next(core, op);
}

// imm: bytes to allocate; aux: nesting level 0..31.
template <class T, class S>
const Op* enter_frame(Core& core, const Op* op) {
  S sp = static_cast<S>(core.reg<S>(kOffsetRsp) - sizeof(T));
  if (!write_stack<T, S>(core, sp, core.reg<T>(kOffsetRbp))) return core.fault();
  const S frame = sp;
  S outer = core.reg<S>(kOffsetRbp);
  for (unsigned level = 1; level < op->aux; ++level) {
    outer = static_cast<S>(outer - sizeof(T));
    sp = static_cast<S>(sp - sizeof(T));
    T value{};
    if (!read_stack<T, S>(core, outer, value)) return core.fault();
    if (!write_stack<T, S>(core, sp, value)) return core.fault();
  }
  if (op->aux != 0) {
    sp = static_cast<S>(sp - sizeof(T));
    if (!write_stack<T, S>(core, sp, static_cast<T>(frame))) return core.fault();
  }
  sp = static_cast<S>(sp - op->imm);
  // The manuals want the new top of the stack to be writable.
  if (!core.probe_write(stack_address<S>(core, sp), 1) && !core.stack_fault()) return core.fault();
  core.set_reg<T>(kOffsetRbp, static_cast<T>(frame));
  core.set_reg<S>(kOffsetRsp, sp);
  return next(core, op);
}

bool select_enter(Insn& insn, Op& op) {
  constexpr unsigned kLevels = 32;
  op.imm = insn.op(0).imm.value.u & 0xffff;
  op.aux = static_cast<std::uint8_t>(insn.op(1).imm.value.u % kLevels);
  return with_stack(insn, [&]<class T, class S>() {
    op.fn = enter_frame<T, S>;
    return true;
  });
}

bool select_leave(Insn& insn, Op& op) {
  return with_stack(insn, [&]<class T, class S>() {
    op.fn = leave_frame<T, S>;
    return true;
  });
}

// Outside 64-bit mode only; elsewhere Zydis calls the opcode invalid.
template <class T, bool kPush>
bool select_all(Insn& insn, Op& op) {
  if (stack_bits(insn) == 32) {
    op.fn = kPush ? push_all<T, std::uint32_t> : pop_all<T, std::uint32_t>;
  } else {
    op.fn = kPush ? push_all<T, std::uint16_t> : pop_all<T, std::uint16_t>;
  }
  return true;
}

}  // namespace

void add_stack(SelectorTable& table) {
  table[ZYDIS_MNEMONIC_PUSH] = select_push;
  table[ZYDIS_MNEMONIC_POP] = select_pop;
  table[ZYDIS_MNEMONIC_PUSHA] = select_all<std::uint16_t, true>;
  table[ZYDIS_MNEMONIC_PUSHAD] = select_all<std::uint32_t, true>;
  table[ZYDIS_MNEMONIC_POPA] = select_all<std::uint16_t, false>;
  table[ZYDIS_MNEMONIC_POPAD] = select_all<std::uint32_t, false>;
  table[ZYDIS_MNEMONIC_ENTER] = select_enter;
  table[ZYDIS_MNEMONIC_LEAVE] = select_leave;
}

}  // namespace sevisor::emulator
