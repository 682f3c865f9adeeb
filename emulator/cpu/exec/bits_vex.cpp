// BMI1 and BMI2: ANDN BEXTR BLSI BLSMSK BLSR BZHI PDEP PEXT RORX SARX SHLX SHRX. Flags left undefined by the manuals
// (AF, PF) are those of the result.
#include <bit>

#include "emulator/cpu/exec/bits.hpp"
#include "emulator/cpu/exec/forms.hpp"

namespace sevisor::emulator {

namespace {

// Three operands: `value` is the one that may lie in memory, `other` the register.
struct AndNot {
  template <class T>
  static T run(StatusFlags& flags, T value, T other) noexcept {
    const T result = static_cast<T>(~other & value);
    flags.set_logic<T>(result);
    return result;
  }
};
struct ExtractField {  // other: start 7:0, length 15:8
  template <class T>
  static T run(StatusFlags& flags, T value, T other) noexcept {
    const unsigned start = other & 0xff;
    const unsigned length = (other >> 8) & 0xff;
    T result = start < kBits<T> ? static_cast<T>(value >> start) : T{0};
    if (length < kBits<T>) result = static_cast<T>(result & ((T{1} << length) - 1));
    flags.set_logic<T>(result);
    return result;
  }
};
struct ZeroHigh {
  template <class T>
  static T run(StatusFlags& flags, T value, T other) noexcept {
    const unsigned first = other & 0xff;
    const bool beyond = first >= kBits<T>;
    const T result = beyond ? value : static_cast<T>(value & ((T{1} << first) - 1));
    flags.set_result<T>(result, beyond, false, false);
    return result;
  }
};
struct ShiftLeftX {
  template <class T>
  static T run(StatusFlags& /*flags*/, T value, T other) noexcept {
    return static_cast<T>(value << (other & (kBits<T> - 1)));
  }
};
struct ShiftRightX {
  template <class T>
  static T run(StatusFlags& /*flags*/, T value, T other) noexcept {
    return static_cast<T>(value >> (other & (kBits<T> - 1)));
  }
};
struct ShiftArithmeticX {
  template <class T>
  static T run(StatusFlags& /*flags*/, T value, T other) noexcept {
    return static_cast<T>(static_cast<std::make_signed_t<T>>(value) >> (other & (kBits<T> - 1)));
  }
};
// Here the mask is the operand that may lie in memory, and the register has the bits.
struct Deposit {
  template <class T>
  static T run(StatusFlags& /*flags*/, T mask, T bits) noexcept {
    T result = 0;
    for (; mask != 0; mask = static_cast<T>(mask & (mask - 1))) {
      if ((bits & 1) != 0) result |= static_cast<T>(mask & (T{0} - mask));
      bits >>= 1;
    }
    return result;
  }
};
struct Extract {
  template <class T>
  static T run(StatusFlags& /*flags*/, T mask, T bits) noexcept {
    T result = 0;
    for (T to = 1; mask != 0; mask = static_cast<T>(mask & (mask - 1)), to = static_cast<T>(to << 1)) {
      if ((bits & mask & (T{0} - mask)) != 0) result |= to;
    }
    return result;
  }
};

// aux: the operand that is always a register.
template <class Operation, class T, At kSrc>
const Op* three_operands(Core& core, const Op* op) {
  T value{};
  if (!read_source<T, kSrc>(core, op, value)) return core.fault();
  core.set_reg<T>(op->dst, Operation::template run<T>(core.flags, value, core.reg<T>(op->aux)));
  return next(core, op);
}
template <class Operation, unsigned kPlace>
bool select_three(Insn& insn, Op& op) {
  op.dst = register_of(insn, 0);
  op.aux = register_of(insn, kPlace == 1 ? 2 : 1);
  return with_size_from_32(size_of(insn, 0), [&]<class T>() {
    return with_place(insn, kPlace, &Op::src, op, [&]<At kSrc>() {
      op.fn = three_operands<Operation, T, kSrc>;
      return true;
    });
  });
}

struct IsolateLowest {
  template <class T>
  static T run(StatusFlags& flags, T value) noexcept {
    const T result = static_cast<T>(value & (T{0} - value));
    flags.set_result<T>(result, value != 0, false, false);
    return result;
  }
};
struct MaskToLowest {
  template <class T>
  static T run(StatusFlags& flags, T value) noexcept {
    const T result = static_cast<T>(value ^ (value - 1));
    flags.set_result<T>(result, value == 0, false, false);
    return result;
  }
};
struct ResetLowest {
  template <class T>
  static T run(StatusFlags& flags, T value) noexcept {
    const T result = static_cast<T>(value & (value - 1));
    flags.set_result<T>(result, value == 0, false, false);
    return result;
  }
};

template <class Operation, class T, At kSrc>
const Op* two_operands(Core& core, const Op* op) {
  T value{};
  if (!read_source<T, kSrc>(core, op, value)) return core.fault();
  core.set_reg<T>(op->dst, Operation::template run<T>(core.flags, value));
  return next(core, op);
}
template <class Operation>
bool select_two(Insn& insn, Op& op) {
  op.dst = register_of(insn, 0);
  return with_size_from_32(size_of(insn, 0), [&]<class T>() {
    return with_place(insn, 1, &Op::src, op, [&]<At kSrc>() {
      op.fn = two_operands<Operation, T, kSrc>;
      return true;
    });
  });
}

template <class T, At kSrc>
const Op* rotate_right_x(Core& core, const Op* op) {
  T value{};
  if (!read_source<T, kSrc>(core, op, value)) return core.fault();
  core.set_reg<T>(op->dst, std::rotr(value, static_cast<int>(op->imm & (kBits<T> - 1))));
  return next(core, op);
}
bool select_rorx(Insn& insn, Op& op) {
  op.dst = register_of(insn, 0);
  op.imm = insn.op(2).imm.value.u;
  return with_size_from_32(size_of(insn, 0), [&]<class T>() {
    return with_place(insn, 1, &Op::src, op, [&]<At kSrc>() {
      op.fn = rotate_right_x<T, kSrc>;
      return true;
    });
  });
}

}  // namespace

void add_vex_bits(SelectorTable& table) {
  table[ZYDIS_MNEMONIC_ANDN] = select_three<AndNot, 2>;
  table[ZYDIS_MNEMONIC_PDEP] = select_three<Deposit, 2>;
  table[ZYDIS_MNEMONIC_PEXT] = select_three<Extract, 2>;
  table[ZYDIS_MNEMONIC_BEXTR] = select_three<ExtractField, 1>;
  table[ZYDIS_MNEMONIC_BZHI] = select_three<ZeroHigh, 1>;
  table[ZYDIS_MNEMONIC_SHLX] = select_three<ShiftLeftX, 1>;
  table[ZYDIS_MNEMONIC_SHRX] = select_three<ShiftRightX, 1>;
  table[ZYDIS_MNEMONIC_SARX] = select_three<ShiftArithmeticX, 1>;
  table[ZYDIS_MNEMONIC_BLSI] = select_two<IsolateLowest>;
  table[ZYDIS_MNEMONIC_BLSMSK] = select_two<MaskToLowest>;
  table[ZYDIS_MNEMONIC_BLSR] = select_two<ResetLowest>;
  table[ZYDIS_MNEMONIC_RORX] = select_rorx;
}

}  // namespace sevisor::emulator
