// SHL, SHR, SAR, ROL, ROR, RCL, RCR, SHLD, SHRD. Counts are taken modulo 32, or 64 for 64-bit operands; a count of 0
// leaves the flags alone. Where the manuals leave a flag undefined, it is what the formula for a count of 1 gives.
#include <bit>

#include "emulator/cpu/exec/forms.hpp"

namespace sevisor::emulator {

namespace {

template <class T>
inline constexpr unsigned kCountMask = sizeof(T) == 8 ? 63 : 31;

template <class T>
[[nodiscard]] bool top_bit(T value) noexcept {
  return (value >> (kBits<T> - 1)) != 0;
}

// In each `run`, count is 1..kCountMask<T>.
struct ShiftLeft {
  template <class T>
  static T run(StatusFlags& flags, T a, unsigned count) noexcept {
    const std::uint64_t wide = a;
    const T result = count < kBits<T> ? static_cast<T>(wide << count) : T{0};
    const bool cf = count <= kBits<T> && ((wide >> (kBits<T> - count)) & 1) != 0;
    flags.set_result<T>(result, cf, top_bit(result) != cf, false);
    return result;
  }
};
struct ShiftRight {
  template <class T>
  static T run(StatusFlags& flags, T a, unsigned count) noexcept {
    const std::uint64_t wide = a;
    const T result = static_cast<T>(wide >> count);
    const bool cf = ((wide >> (count - 1)) & 1) != 0;
    // OF: bit 7 (15, 31, 63) of the value before the last step.
    flags.set_result<T>(result, cf, top_bit(static_cast<T>(result << 1)) != top_bit(result), false);
    return result;
  }
};
struct ShiftArithmetic {
  template <class T>
  static T run(StatusFlags& flags, T a, unsigned count) noexcept {
    const auto wide = static_cast<std::int64_t>(static_cast<std::make_signed_t<T>>(a));
    const T result = static_cast<T>(wide >> count);
    flags.set_result<T>(result, ((wide >> (count - 1)) & 1) != 0, false, false);
    return result;
  }
};
// Rotates change CF and OF only.
struct RotateLeft {
  template <class T>
  static T run(StatusFlags& flags, T a, unsigned count) noexcept {
    const T result = std::rotl(a, static_cast<int>(count % kBits<T>));
    flags.set_rotated_left<T>(result);
    return result;
  }
};
struct RotateRight {
  template <class T>
  static T run(StatusFlags& flags, T a, unsigned count) noexcept {
    const T result = std::rotr(a, static_cast<int>(count % kBits<T>));
    flags.set_rotated_right<T>(result);
    return result;
  }
};
// Through CF: rotations of kBits<T> + 1 bits.
struct RotateCarryLeft {
  template <class T>
  static T run(StatusFlags& flags, T a, unsigned count) noexcept {
    const unsigned n = count % (kBits<T> + 1);
    if (n == 0) return a;
    const std::uint64_t wide = a;
    const std::uint64_t carry_in = flags.cf() ? 1 : 0;
    std::uint64_t result = carry_in << (n - 1);
    if (n < kBits<T>) result |= wide << n;
    if (n > 1) result |= wide >> (kBits<T> + 1 - n);
    const bool cf = ((wide >> (kBits<T> - n)) & 1) != 0;
    flags.set_cf(cf);
    flags.set_of(top_bit(static_cast<T>(result)) != cf);
    return static_cast<T>(result);
  }
};
struct RotateCarryRight {
  template <class T>
  static T run(StatusFlags& flags, T a, unsigned count) noexcept {
    const unsigned n = count % (kBits<T> + 1);
    if (n == 0) return a;
    const std::uint64_t wide = a;
    const std::uint64_t carry_in = flags.cf() ? 1 : 0;
    std::uint64_t result = carry_in << (kBits<T> - n);
    if (n < kBits<T>) result |= wide >> n;
    if (n > 1) result |= wide << (kBits<T> + 1 - n);
    const T out = static_cast<T>(result);
    flags.set_cf(((wide >> (n - 1)) & 1) != 0);
    flags.set_of(top_bit(out) != top_bit(static_cast<T>(out << 1)));
    return out;
  }
};

enum class Count : std::uint8_t { kImmediate, kCl };  // kImmediate: op->imm, masked, never 0

template <class Operation, class T, At kDst, Count kCount>
const Op* shift(Core& core, const Op* op) {
  const unsigned count =
      kCount == Count::kImmediate ? static_cast<unsigned>(op->imm) : core.reg<std::uint8_t>(kOffsetRcx) & kCountMask<T>;
  const auto run = [&core, count](T a) {
    if (kCount == Count::kCl && count == 0) return a;
    return Operation::template run<T>(core.flags, a, count);
  };
  if (!modify_operand<T, kDst>(core, op, run)) return core.fault();
  return next(core, op);
}

// An immediate count of 0: the operand is still written, so that 32 bits clear the upper half and memory may fault.
template <class T, At kDst>
const Op* shift_by_zero(Core& core, const Op* op) {
  if (!modify_operand<T, kDst>(core, op, [](T a) { return a; })) return core.fault();
  return next(core, op);
}

template <class Operation>
bool select_shift(Insn& insn, Op& op) {
  return with_size(size_of(insn, 0), [&]<class T>() {
    return with_place(insn, 0, &Op::dst, op, [&]<At kDst>() {
      if (!insn.is_imm(1)) {
        op.fn = shift<Operation, T, kDst, Count::kCl>;
        return true;
      }
      op.imm = insn.op(1).imm.value.u & kCountMask<T>;
      op.fn = op.imm == 0 ? shift_by_zero<T, kDst> : shift<Operation, T, kDst, Count::kImmediate>;
      return true;
    });
  });
}

// 16-bit operands with counts above 16, undefined by the manuals, go round: what follows the source is the destination.
struct DoubleLeft {
  template <class T>
  static T run(StatusFlags& flags, T a, T b, unsigned count) noexcept {
    T result{};
    bool cf = false;
    if constexpr (sizeof(T) == 2) {
      const std::uint64_t all = std::uint64_t{a} << 32 | std::uint64_t{b} << 16 | a;
      result = static_cast<T>(all >> (32 - count));
      cf = ((all >> (48 - count)) & 1) != 0;
    } else {
      result = static_cast<T>(a << count | b >> (kBits<T> - count));
      cf = ((a >> (kBits<T> - count)) & 1) != 0;
    }
    flags.set_result<T>(result, cf, top_bit(result) != top_bit(a), false);
    return result;
  }
};
struct DoubleRight {
  template <class T>
  static T run(StatusFlags& flags, T a, T b, unsigned count) noexcept {
    T result{};
    bool cf = false;
    if constexpr (sizeof(T) == 2) {
      const std::uint64_t all = std::uint64_t{a} << 32 | std::uint64_t{b} << 16 | a;
      result = static_cast<T>(all >> count);
      cf = ((all >> (count - 1)) & 1) != 0;
    } else {
      result = static_cast<T>(a >> count | b << (kBits<T> - count));
      cf = ((a >> (count - 1)) & 1) != 0;
    }
    flags.set_result<T>(result, cf, top_bit(result) != top_bit(a), false);
    return result;
  }
};

// src: the register whose bits come in.
template <class Operation, class T, At kDst, Count kCount>
const Op* double_shift(Core& core, const Op* op) {
  const unsigned count =
      kCount == Count::kImmediate ? static_cast<unsigned>(op->imm) : core.reg<std::uint8_t>(kOffsetRcx) & kCountMask<T>;
  const T b = core.reg<T>(op->src);
  const auto run = [&core, b, count](T a) {
    if (kCount == Count::kCl && count == 0) return a;
    return Operation::template run<T>(core.flags, a, b, count);
  };
  if (!modify_operand<T, kDst>(core, op, run)) return core.fault();
  return next(core, op);
}

template <class Operation>
bool select_double(Insn& insn, Op& op) {
  op.src = register_of(insn, 1);
  return with_size_from_16(size_of(insn, 0), [&]<class T>() {
    return with_place(insn, 0, &Op::dst, op, [&]<At kDst>() {
      if (!insn.is_imm(2)) {
        op.fn = double_shift<Operation, T, kDst, Count::kCl>;
        return true;
      }
      op.imm = insn.op(2).imm.value.u & kCountMask<T>;
      op.fn = op.imm == 0 ? shift_by_zero<T, kDst> : double_shift<Operation, T, kDst, Count::kImmediate>;
      return true;
    });
  });
}

}  // namespace

void add_shifts(SelectorTable& table) {
  table[ZYDIS_MNEMONIC_SHL] = select_shift<ShiftLeft>;
  table[ZYDIS_MNEMONIC_SHR] = select_shift<ShiftRight>;
  table[ZYDIS_MNEMONIC_SAR] = select_shift<ShiftArithmetic>;
  table[ZYDIS_MNEMONIC_ROL] = select_shift<RotateLeft>;
  table[ZYDIS_MNEMONIC_ROR] = select_shift<RotateRight>;
  table[ZYDIS_MNEMONIC_RCL] = select_shift<RotateCarryLeft>;
  table[ZYDIS_MNEMONIC_RCR] = select_shift<RotateCarryRight>;
  table[ZYDIS_MNEMONIC_SHLD] = select_double<DoubleLeft>;
  table[ZYDIS_MNEMONIC_SHRD] = select_double<DoubleRight>;
}

}  // namespace sevisor::emulator
