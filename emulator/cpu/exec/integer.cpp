// Two- and one-operand arithmetic and logic: ADD ADC SUB SBB AND OR XOR CMP TEST, INC DEC NEG NOT.
#include "emulator/cpu/exec/integer.hpp"

#include "emulator/cpu/exec/arithmetic.hpp"

namespace sevisor::emulator {

namespace {

// XOR and SUB of a register with itself: the usual way to write 0. The flags of both are those of the result 0.
template <class T>
const Op* clear(Core& core, const Op* op) {
  core.set_reg<T>(op->dst, 0);
  core.flags.set_logic<T>(0);
  return next(core, op);
}
template <class Operation>
bool select_binary(Insn& insn, Op& op) {
  return with_size(size_of(insn, 0), [&]<class T>() {
    if (insn.is_imm(1)) {
      op.imm = insn.op(1).imm.value.u;
      return with_place(insn, 0, &Op::dst, op, [&]<At kDst>() {
        op.fn = binary<Operation, T, kDst, At::kImm>;
        return true;
      });
    }
    if (insn.is_mem(0)) {
      if (!is_general(insn, 1)) return false;
      op.src = register_of(insn, 1);
      op.fn = place_memory(insn, 0, op) == At::kPlain ? binary<Operation, T, At::kPlain, At::kReg>
                                                      : binary<Operation, T, At::kMem, At::kReg>;
      return true;
    }
    op.dst = register_of(insn, 0);
    return with_place(insn, 1, &Op::src, op, [&]<At kSrc>() {
      op.fn = binary<Operation, T, At::kReg, kSrc>;
      if (kSrc == At::kReg && op.src == op.dst) {
        if constexpr (std::is_same_v<Operation, Xor> || std::is_same_v<Operation, Sub>) op.fn = clear<T>;
        if constexpr (std::is_same_v<Operation, Test>) op.fn = test_self<T>;
      }
      return true;
    });
  });
}

struct Increment {
  template <class T>
  static T run(StatusFlags& flags, T a) noexcept {
    const T result = static_cast<T>(a + 1);
    flags.set_inc<T>(a, result);
    return result;
  }
};
struct Decrement {
  template <class T>
  static T run(StatusFlags& flags, T a) noexcept {
    const T result = static_cast<T>(a - 1);
    flags.set_dec<T>(a, result);
    return result;
  }
};
struct Negate {
  template <class T>
  static T run(StatusFlags& flags, T a) noexcept {
    const T result = static_cast<T>(0 - a);
    flags.set_sub<T>(0, a, result);
    return result;
  }
};
struct Not {
  template <class T>
  static T run(StatusFlags& /*flags*/, T a) noexcept {
    return static_cast<T>(~a);
  }
};

template <class Operation, class T, At kAt>
const Op* unary(Core& core, const Op* op) {
  const auto run = [&core](T a) { return Operation::template run<T>(core.flags, a); };
  if (!modify_operand<T, kAt>(core, op, run)) return core.fault();
  return next(core, op);
}

template <class Operation>
bool select_unary(Insn& insn, Op& op) {
  return with_size(size_of(insn, 0), [&]<class T>() {
    return with_place(insn, 0, &Op::dst, op, [&]<At kAt>() {
      op.fn = unary<Operation, T, kAt>;
      return true;
    });
  });
}

}  // namespace

void add_integer(SelectorTable& table) {
  table[ZYDIS_MNEMONIC_ADD] = select_binary<Add>;
  table[ZYDIS_MNEMONIC_ADC] = select_binary<Adc>;
  table[ZYDIS_MNEMONIC_SUB] = select_binary<Sub>;
  table[ZYDIS_MNEMONIC_SBB] = select_binary<Sbb>;
  table[ZYDIS_MNEMONIC_CMP] = select_binary<Compare>;
  table[ZYDIS_MNEMONIC_AND] = select_binary<And>;
  table[ZYDIS_MNEMONIC_TEST] = select_binary<Test>;
  table[ZYDIS_MNEMONIC_OR] = select_binary<Or>;
  table[ZYDIS_MNEMONIC_XOR] = select_binary<Xor>;
  table[ZYDIS_MNEMONIC_INC] = select_unary<Increment>;
  table[ZYDIS_MNEMONIC_DEC] = select_unary<Decrement>;
  table[ZYDIS_MNEMONIC_NEG] = select_unary<Negate>;
  table[ZYDIS_MNEMONIC_NOT] = select_unary<Not>;
  add_moves(table);
  add_exchanges(table);
  add_stack(table);
  add_control(table);
  add_flag_operations(table);
}

}  // namespace sevisor::emulator
