// Near branches: JMP, Jcc, CALL, RET, LOOPcc, JrCXZ; and the instructions that only raise exceptions: BOUND, UDn.
// Far forms are exec_system's.
#include <algorithm>

#include "emulator/cpu/exec/branch.hpp"
#include "emulator/cpu/exec/integer.hpp"
#include "emulator/cpu/exec/stack.hpp"

namespace sevisor::emulator {

namespace {

constexpr unsigned kVirtualBits = 48;
bool canonical(std::uint64_t va) noexcept {
  const auto extended = static_cast<std::int64_t>(va << (64 - kVirtualBits)) >> (64 - kVirtualBits);
  return static_cast<std::uint64_t>(extended) == va;
}
// T: operand size. A target of 16 or 32 bits is always canonical.
template <class T>
bool valid_target(T target) noexcept {
  if constexpr (sizeof(T) == 8) return canonical(target);
  return true;
}

bool is_far(const Insn& insn) { return insn.info.meta.branch_type == ZYDIS_BRANCH_TYPE_FAR; }

// In 64-bit code an operand size prefix leaves a near branch 16 bits (APM vol. 3, 1.2.3 and CALL, JMP, Jcc, RET). Zydis
// has 64 for most of them, as Intel's processors do.
constexpr unsigned kOperandSizePrefix = 0x66;
void narrow_branch(Insn& insn) {
  constexpr unsigned kNarrow = 16;
  const auto* prefixes = insn.info.raw.prefixes;
  const bool prefixed = std::any_of(prefixes, prefixes + insn.info.raw.prefix_count,
                                    [](const auto& prefix) { return prefix.value == kOperandSizePrefix; });
  if (insn.code64() && prefixed && insn.info.raw.rex.W == 0) insn.info.operand_width = kNarrow;
}

void place_target(Insn& insn, Op& op) {
  narrow_branch(insn);
  op.imm = op.rip_offset + op.length + insn.op(0).imm.value.u;
  const unsigned bits = insn.operand_bits();
  op.address_mask = bits == 64 ? ~std::uint64_t{0} : (std::uint64_t{1} << bits) - 1;
}

const Op* jump_direct(Core& core, const Op* op) { return core.jump_linked(op, target_of(core, op)); }

template <class T, At kSrc>
const Op* jump_indirect(Core& core, const Op* op) {
  T target{};
  if (!read_source<T, kSrc>(core, op, target)) return core.fault();
  if (!valid_target(target)) return core.fault(kVectorGp, 0);
  return core.jump(target);
}

bool select_jump(Insn& insn, Op& op) {
  if (is_far(insn)) return false;
  insn.ends_block = true;
  if (insn.is_imm(0)) {
    place_target(insn, op);
    op.fn = jump_direct;
    return true;
  }
  narrow_branch(insn);
  return with_size_from_16(insn.operand_bits(), [&]<class T>() {
    return with_place(insn, 0, &Op::src, op, [&]<At kSrc>() {
      op.fn = jump_indirect<T, kSrc>;
      return true;
    });
  });
}

template <unsigned kCode, bool k64>
const Op* jump_if(Core& core, const Op* op) {
  if (condition<kCode>(core.flags)) return core.jump_linked(op, target_of(core, op));
  return fall_through<k64>(core, op);
}

bool select_jump_if(Insn& insn, Op& op) {
  insn.last = true;
  place_target(insn, op);
  return with_condition(insn.info.opcode, [&]<unsigned kCode>() {
    op.fn = insn.code64() ? jump_if<kCode, true> : jump_if<kCode, false>;
    return true;
  });
}

enum class Loop : std::uint8_t { kAlways, kWhileZero, kWhileNotZero };

// C: type of the counter, by address size.
template <class C, Loop kLoop>
const Op* loop(Core& core, const Op* op) {
  const C count = static_cast<C>(core.reg<C>(kOffsetRcx) - 1);
  core.set_reg<C>(kOffsetRcx, count);
  const bool again = count != 0 && (kLoop == Loop::kAlways || core.flags.zf() == (kLoop == Loop::kWhileZero));
  if (again) return core.jump_linked(op, target_of(core, op));
  return fall_through<false>(core, op);
}
template <class C>
const Op* jump_if_counter_zero(Core& core, const Op* op) {
  if (core.reg<C>(kOffsetRcx) == 0) return core.jump_linked(op, target_of(core, op));
  return fall_through<false>(core, op);
}

template <Loop kLoop>
bool place_loop(Insn& insn, Op& op) {
  insn.last = true;
  place_target(insn, op);
  return with_size_from_16(insn.info.address_width, [&]<class C>() {
    op.fn = loop<C, kLoop>;
    return true;
  });
}
bool select_loop(Insn& insn, Op& op) { return place_loop<Loop::kAlways>(insn, op); }

// The last of REP's prefixes; 0 if there is none.
unsigned last_repeat_prefix(const Insn& insn) {
  constexpr unsigned kRepne = 0xf2;
  constexpr unsigned kRep = 0xf3;
  unsigned found = 0;
  for (std::size_t n = 0; n < insn.info.raw.prefix_count; ++n) {
    const unsigned value = insn.info.raw.prefixes[n].value;
    if (value == kRepne || value == kRep) found = value;
  }
  return found;
}

// On AMD's processors a prefix of REP's takes the place of the opcode's own condition.
template <Loop kLoop>
bool select_loop_if(Insn& insn, Op& op) {
  switch (last_repeat_prefix(insn)) {
    case 0xf2:
      return place_loop<Loop::kWhileNotZero>(insn, op);
    case 0xf3:
      return place_loop<Loop::kWhileZero>(insn, op);
    default:
      return place_loop<kLoop>(insn, op);
  }
}
template <class C>
bool select_counter_zero(Insn& insn, Op& op) {
  insn.last = true;
  place_target(insn, op);
  op.fn = jump_if_counter_zero<C>;
  return true;
}

// --- CALL and RET: T operand size, S stack pointer
// ---------------------------------------------------------------------

template <class T, class S>
const Op* call_direct(Core& core, const Op* op) {
  if (!push<T, S>(core, static_cast<T>(core.rip_after(op)))) return core.fault();
  return core.jump_linked(op, target_of(core, op));
}

template <class T, class S, At kSrc>
const Op* call_indirect(Core& core, const Op* op) {
  T target{};
  if (!read_source<T, kSrc>(core, op, target)) return core.fault();
  if (!valid_target(target)) {
    // Nothing is pushed, but a fault of the stack comes first.
    return can_push<T, S>(core) ? core.fault(kVectorGp, 0) : core.fault();
  }
  if (!push<T, S>(core, static_cast<T>(core.rip_after(op)))) return core.fault();
  return core.jump(target);
}

bool select_call(Insn& insn, Op& op) {
  if (is_far(insn)) return false;
  insn.ends_block = true;
  narrow_branch(insn);
  return with_stack(insn, [&]<class T, class S>() {
    if (insn.is_imm(0)) {
      place_target(insn, op);
      op.fn = call_direct<T, S>;
      return true;
    }
    return with_place(insn, 0, &Op::src, op, [&]<At kSrc>() {
      op.fn = call_indirect<T, S, kSrc>;
      return true;
    });
  });
}

// imm: bytes of arguments to drop.
template <class T, class S>
const Op* near_return(Core& core, const Op* op) {
  const S sp = core.reg<S>(kOffsetRsp);
  T target{};
  if (!read_stack<T, S>(core, sp, target)) return core.fault();
  if (!valid_target(target)) return core.fault(kVectorGp, 0);
  core.set_reg<S>(kOffsetRsp, static_cast<S>(sp + sizeof(T) + op->imm));
  return core.jump(target);
}

bool select_return(Insn& insn, Op& op) {
  if (is_far(insn)) return false;
  insn.ends_block = true;
  narrow_branch(insn);
  op.imm = insn.is_imm(0) ? insn.op(0).imm.value.u & 0xffff : 0;
  return with_stack(insn, [&]<class T, class S>() {
    op.fn = near_return<T, S>;
    return true;
  });
}

// T: signed type of the index and of each of the two bounds in memory.
template <class T>
const Op* bound(Core& core, const Op* op) {
  using Bits = std::make_unsigned_t<T>;
  const std::uint64_t va = core.address(op);
  const T index = static_cast<T>(core.reg<Bits>(op->dst));
  Bits lower{};
  Bits upper{};
  if (!core.read<Bits>(va, lower) || !core.read<Bits>(va + sizeof(T), upper)) return core.fault();
  if (index < static_cast<T>(lower) || index > static_cast<T>(upper)) return core.fault(kVectorBr);
  return next(core, op);
}

bool select_bound(Insn& insn, Op& op) {
  op.dst = register_of(insn, 0);
  set_memory(insn, insn.op(1), op);
  op.fn = size_of(insn, 0) == 16 ? bound<std::int16_t> : bound<std::int32_t>;
  return true;
}

bool select_undefined(Insn& insn, Op& op) {
  insn.ends_block = true;
  op.fn = op_undefined;
  return true;
}

}  // namespace

void add_control(SelectorTable& table) {
  table[ZYDIS_MNEMONIC_JMP] = select_jump;
  for (const ZydisMnemonic m : {ZYDIS_MNEMONIC_JO, ZYDIS_MNEMONIC_JNO, ZYDIS_MNEMONIC_JB, ZYDIS_MNEMONIC_JNB,
                                ZYDIS_MNEMONIC_JZ, ZYDIS_MNEMONIC_JNZ, ZYDIS_MNEMONIC_JBE, ZYDIS_MNEMONIC_JNBE,
                                ZYDIS_MNEMONIC_JS, ZYDIS_MNEMONIC_JNS, ZYDIS_MNEMONIC_JP, ZYDIS_MNEMONIC_JNP,
                                ZYDIS_MNEMONIC_JL, ZYDIS_MNEMONIC_JNL, ZYDIS_MNEMONIC_JLE, ZYDIS_MNEMONIC_JNLE}) {
    table[m] = select_jump_if;
  }
  table[ZYDIS_MNEMONIC_LOOP] = select_loop;
  table[ZYDIS_MNEMONIC_LOOPE] = select_loop_if<Loop::kWhileZero>;
  table[ZYDIS_MNEMONIC_LOOPNE] = select_loop_if<Loop::kWhileNotZero>;
  table[ZYDIS_MNEMONIC_JCXZ] = select_counter_zero<std::uint16_t>;
  table[ZYDIS_MNEMONIC_JECXZ] = select_counter_zero<std::uint32_t>;
  table[ZYDIS_MNEMONIC_JRCXZ] = select_counter_zero<std::uint64_t>;
  table[ZYDIS_MNEMONIC_CALL] = select_call;
  table[ZYDIS_MNEMONIC_RET] = select_return;
  table[ZYDIS_MNEMONIC_BOUND] = select_bound;
  table[ZYDIS_MNEMONIC_UD0] = select_undefined;
  table[ZYDIS_MNEMONIC_UD1] = select_undefined;
  table[ZYDIS_MNEMONIC_UD2] = select_undefined;
}

}  // namespace sevisor::emulator
