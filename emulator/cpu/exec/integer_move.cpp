// Data movement without arithmetic: MOV, MOVZX, MOVSX, MOVSXD, MOVBE, MOVNTI, LEA, BSWAP, CMOVcc, SETcc, XLAT, CBW ...
#include <algorithm>

#include "emulator/cpu/exec/forms.hpp"
#include "emulator/cpu/exec/integer.hpp"

namespace sevisor::emulator {

namespace {

template <class T, At kSrc>
const Op* load_register(Core& core, const Op* op) {
  T value{};
  if (!read_source<T, kSrc>(core, op, value)) return core.fault();
  core.set_reg<T>(op->dst, value);
  return next(core, op);
}

template <class T, At kDst, At kSrc>
const Op* store_memory(Core& core, const Op* op) {
  const T value = kSrc == At::kImm ? static_cast<T>(op->imm) : core.reg<T>(op->src);
  if (!core.write<T>(address_of<kDst>(core, op), value)) return core.fault();
  return next(core, op);
}

// MOV to or from segment, control and debug registers is exec_system's.
bool select_move(Insn& insn, Op& op) {
  return with_size(size_of(insn, 0), [&]<class T>() {
    if (insn.is_mem(0)) {
      const bool plain = place_memory(insn, 0, op) == At::kPlain;
      if (insn.is_imm(1)) {
        op.imm = insn.op(1).imm.value.u;
        op.fn = plain ? store_memory<T, At::kPlain, At::kImm> : store_memory<T, At::kMem, At::kImm>;
        return true;
      }
      if (!is_general(insn, 1)) return false;
      op.src = register_of(insn, 1);
      op.fn = plain ? store_memory<T, At::kPlain, At::kReg> : store_memory<T, At::kMem, At::kReg>;
      return true;
    }
    if (!is_general(insn, 0)) return false;
    op.dst = register_of(insn, 0);
    if (insn.is_imm(1)) {
      op.imm = insn.op(1).imm.value.u;
      op.fn = load_register<T, At::kImm>;
      return true;
    }
    return with_place(insn, 1, &Op::src, op, [&]<At kSrc>() {
      op.fn = load_register<T, kSrc>;
      return true;
    });
  });
}

// MOVSXD with an operand of 16 bits: all 32 bits of the source are read.
template <At kSrc>
const Op* extend_from_wider(Core& core, const Op* op) {
  std::uint32_t value{};
  if (!read_source<std::uint32_t, kSrc>(core, op, value)) return core.fault();
  core.set_reg<std::uint16_t>(op->dst, static_cast<std::uint16_t>(value));
  return next(core, op);
}

template <class To, class From, At kSrc>
const Op* extend(Core& core, const Op* op) {
  From value{};
  using Bits = std::make_unsigned_t<From>;
  Bits bits{};
  if (!read_source<Bits, kSrc>(core, op, bits)) return core.fault();
  value = static_cast<From>(bits);
  core.set_reg<To>(op->dst, static_cast<To>(value));
  return next(core, op);
}

template <bool kSigned>
bool select_extend(Insn& insn, Op& op) {
  op.dst = register_of(insn, 0);
  if (size_of(insn, 0) < size_of(insn, 1)) {
    return with_place(insn, 1, &Op::src, op, [&]<At kSrc>() {
      op.fn = extend_from_wider<kSrc>;
      return true;
    });
  }
  return with_size_from_16(size_of(insn, 0), [&]<class To>() {
    return with_size(size_of(insn, 1), [&]<class From>() {
      using Source = std::conditional_t<kSigned, std::make_signed_t<From>, From>;
      return with_place(insn, 1, &Op::src, op, [&]<At kSrc>() {
        op.fn = extend<To, Source, kSrc>;
        return true;
      });
    });
  });
}

template <class T>
[[nodiscard]] T byte_swapped(T value) noexcept {
  if constexpr (sizeof(T) == 1) return value;
  if constexpr (sizeof(T) == 2) return __builtin_bswap16(value);
  if constexpr (sizeof(T) == 4) return __builtin_bswap32(value);
  if constexpr (sizeof(T) == 8) return __builtin_bswap64(value);
}

template <class T, At kSrc>
const Op* load_swapped(Core& core, const Op* op) {
  T value{};
  if (!read_source<T, kSrc>(core, op, value)) return core.fault();
  core.set_reg<T>(op->dst, byte_swapped(value));
  return next(core, op);
}
template <class T, At kDst>
const Op* store_swapped(Core& core, const Op* op) {
  if (!write_operand<T, kDst>(core, op, byte_swapped(core.reg<T>(op->src)))) return core.fault();
  return next(core, op);
}

bool select_movbe(Insn& insn, Op& op) {
  return with_size_from_16(size_of(insn, 0), [&]<class T>() {
    if (insn.is_mem(0)) {
      op.src = register_of(insn, 1);
      op.fn = place_memory(insn, 0, op) == At::kPlain ? store_swapped<T, At::kPlain> : store_swapped<T, At::kMem>;
    } else {
      op.dst = register_of(insn, 0);
      op.fn = place_memory(insn, 1, op) == At::kPlain ? load_swapped<T, At::kPlain> : load_swapped<T, At::kMem>;
    }
    return true;
  });
}

template <class T>
const Op* swap_register(Core& core, const Op* op) {
  core.set_reg<T>(op->dst, byte_swapped(core.reg<T>(op->dst)));
  return next(core, op);
}
// Undefined by the manuals; processors clear the register.
const Op* swap_word(Core& core, const Op* op) {
  core.set_reg<std::uint16_t>(op->dst, 0);
  return next(core, op);
}

bool select_bswap(Insn& insn, Op& op) {
  op.dst = register_of(insn, 0);
  if (size_of(insn, 0) == 16) {
    op.fn = swap_word;
    return true;
  }
  return with_size_from_32(size_of(insn, 0), [&]<class T>() {
    op.fn = swap_register<T>;
    return true;
  });
}

enum class LeaForm : std::uint8_t { kAny, kBaseDisp, kBaseIndex };

template <class T, LeaForm kForm>
const Op* lea(Core& core, const Op* op) {
  std::uint64_t value = 0;
  const auto disp = static_cast<std::uint64_t>(op->disp);
  if constexpr (kForm == LeaForm::kBaseDisp) {
    value = core.gpr[op->base] + disp;
  } else if constexpr (kForm == LeaForm::kBaseIndex) {
    value = core.gpr[op->base] + (core.gpr[op->index] << op->scale) + disp;
  } else {
    value = (core.gpr[op->base] + (core.gpr[op->index] << op->scale) + disp) & op->address_mask;
  }
  core.set_reg<T>(op->dst, static_cast<T>(value));
  return next(core, op);
}

bool select_lea(Insn& insn, Op& op) {
  op.dst = register_of(insn, 0);
  set_memory(insn, insn.op(1), op);
  return with_size_from_16(size_of(insn, 0), [&]<class T>() {
    // The mask does nothing if the address is at least as wide as the result.
    const bool masked = static_cast<T>(op.address_mask) != static_cast<T>(~T{0});
    op.fn = masked                 ? lea<T, LeaForm::kAny>
            : op.index == kRegZero ? lea<T, LeaForm::kBaseDisp>
                                   : lea<T, LeaForm::kBaseIndex>;
    return true;
  });
}

// Memory is read, and 32 bits clear the upper half, whether the condition holds or not.
template <unsigned kCode, class T, At kSrc>
const Op* conditional_move(Core& core, const Op* op) {
  T value{};
  if (!read_source<T, kSrc>(core, op, value)) return core.fault();
  const T old = core.reg<T>(op->dst);
  core.set_reg<T>(op->dst, condition<kCode>(core.flags) ? value : old);
  return next(core, op);
}

bool select_cmov(Insn& insn, Op& op) {
  op.dst = register_of(insn, 0);
  return with_size_from_16(size_of(insn, 0), [&]<class T>() {
    return with_place(insn, 1, &Op::src, op, [&]<At kSrc>() {
      return with_condition(insn.info.opcode, [&]<unsigned kCode>() {
        op.fn = conditional_move<kCode, T, kSrc>;
        return true;
      });
    });
  });
}

template <unsigned kCode, At kDst>
const Op* set_byte(Core& core, const Op* op) {
  if (!write_operand<std::uint8_t, kDst>(core, op, condition<kCode>(core.flags) ? 1 : 0)) return core.fault();
  return next(core, op);
}

bool select_set(Insn& insn, Op& op) {
  return with_place(insn, 0, &Op::dst, op, [&]<At kDst>() {
    return with_condition(insn.info.opcode, [&]<unsigned kCode>() {
      op.fn = set_byte<kCode, kDst>;
      return true;
    });
  });
}

// AL = [rBX + AL]; rBX is op->base.
const Op* translate_byte(Core& core, const Op* op) {
  const std::uint64_t offset = core.gpr[op->base] + core.reg<std::uint8_t>(kOffsetRax);
  std::uint8_t value = 0;
  if (!core.read((offset & op->address_mask) + core.gpr[op->segment], value)) return core.fault();
  core.set_reg<std::uint8_t>(kOffsetRax, value);
  return next(core, op);
}

bool select_xlat(Insn& insn, Op& op) {
  for (unsigned n = 0; n < insn.info.operand_count; ++n) {
    if (!insn.is_mem(n)) continue;
    ZydisDecodedOperand table = insn.op(n);
    table.mem.index = ZYDIS_REGISTER_NONE;
    table.mem.scale = 0;
    set_memory(insn, table, op);
    op.fn = translate_byte;
    return true;
  }
  return false;
}

// CBW, CWDE, CDQE: the accumulator from its lower half.
template <class To>
const Op* widen(Core& core, const Op* op) {
  using Half =
      std::conditional_t<sizeof(To) == 2, std::int8_t, std::conditional_t<sizeof(To) == 4, std::int16_t, std::int32_t>>;
  const auto half = static_cast<Half>(core.reg<std::make_unsigned_t<Half>>(kOffsetRax));
  core.set_reg<To>(kOffsetRax, static_cast<To>(half));
  return next(core, op);
}
// CWD, CDQ, CQO: rDX from the accumulator's sign.
template <class T>
const Op* spread_sign(Core& core, const Op* op) {
  const bool negative = (core.reg<T>(kOffsetRax) >> (kBits<T> - 1)) != 0;
  core.set_reg<T>(kOffsetRdx, negative ? static_cast<T>(~T{0}) : T{0});
  return next(core, op);
}
template <Handler kHandler>
bool select_fixed(Insn& /*insn*/, Op& op) {
  op.fn = kHandler;
  return true;
}

}  // namespace

void add_moves(SelectorTable& table) {
  table[ZYDIS_MNEMONIC_MOV] = select_move;
  table[ZYDIS_MNEMONIC_MOVNTI] = select_move;
  table[ZYDIS_MNEMONIC_MOVZX] = select_extend<false>;
  table[ZYDIS_MNEMONIC_MOVSX] = select_extend<true>;
  table[ZYDIS_MNEMONIC_MOVSXD] = select_extend<true>;
  table[ZYDIS_MNEMONIC_MOVBE] = select_movbe;
  table[ZYDIS_MNEMONIC_BSWAP] = select_bswap;
  table[ZYDIS_MNEMONIC_LEA] = select_lea;
  table[ZYDIS_MNEMONIC_XLAT] = select_xlat;
  table[ZYDIS_MNEMONIC_CBW] = select_fixed<widen<std::uint16_t>>;
  table[ZYDIS_MNEMONIC_CWDE] = select_fixed<widen<std::uint32_t>>;
  table[ZYDIS_MNEMONIC_CDQE] = select_fixed<widen<std::uint64_t>>;
  table[ZYDIS_MNEMONIC_CWD] = select_fixed<spread_sign<std::uint16_t>>;
  table[ZYDIS_MNEMONIC_CDQ] = select_fixed<spread_sign<std::uint32_t>>;
  table[ZYDIS_MNEMONIC_CQO] = select_fixed<spread_sign<std::uint64_t>>;
  for (const ZydisMnemonic m :
       {ZYDIS_MNEMONIC_CMOVO, ZYDIS_MNEMONIC_CMOVNO, ZYDIS_MNEMONIC_CMOVB, ZYDIS_MNEMONIC_CMOVNB, ZYDIS_MNEMONIC_CMOVZ,
        ZYDIS_MNEMONIC_CMOVNZ, ZYDIS_MNEMONIC_CMOVBE, ZYDIS_MNEMONIC_CMOVNBE, ZYDIS_MNEMONIC_CMOVS,
        ZYDIS_MNEMONIC_CMOVNS, ZYDIS_MNEMONIC_CMOVP, ZYDIS_MNEMONIC_CMOVNP, ZYDIS_MNEMONIC_CMOVL, ZYDIS_MNEMONIC_CMOVNL,
        ZYDIS_MNEMONIC_CMOVLE, ZYDIS_MNEMONIC_CMOVNLE}) {
    table[m] = select_cmov;
  }
  for (const ZydisMnemonic m :
       {ZYDIS_MNEMONIC_SETO, ZYDIS_MNEMONIC_SETNO, ZYDIS_MNEMONIC_SETB, ZYDIS_MNEMONIC_SETNB, ZYDIS_MNEMONIC_SETZ,
        ZYDIS_MNEMONIC_SETNZ, ZYDIS_MNEMONIC_SETBE, ZYDIS_MNEMONIC_SETNBE, ZYDIS_MNEMONIC_SETS, ZYDIS_MNEMONIC_SETNS,
        ZYDIS_MNEMONIC_SETP, ZYDIS_MNEMONIC_SETNP, ZYDIS_MNEMONIC_SETL, ZYDIS_MNEMONIC_SETNL, ZYDIS_MNEMONIC_SETLE,
        ZYDIS_MNEMONIC_SETNLE}) {
    table[m] = select_set;
  }
}

}  // namespace sevisor::emulator
