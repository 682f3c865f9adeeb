// MUL, IMUL, DIV, IDIV, MULX.
#include "emulator/cpu/exec/multiply.hpp"

#include "emulator/cpu/exec/forms.hpp"

namespace sevisor::emulator {

namespace {

__extension__ using Uint128 = unsigned __int128;
__extension__ using Int128 = __int128;

template <class T>
using Double = std::conditional_t<
    sizeof(T) == 1, std::uint16_t,
    std::conditional_t<sizeof(T) == 2, std::uint32_t, std::conditional_t<sizeof(T) == 4, std::uint64_t, Uint128>>>;
template <class T>
using SignedDouble = std::conditional_t<
    sizeof(T) == 1, std::int16_t,
    std::conditional_t<sizeof(T) == 2, std::int32_t, std::conditional_t<sizeof(T) == 4, std::int64_t, Int128>>>;

template <class T>
[[nodiscard]] Double<T> multiply(T a, T b) noexcept {
  return static_cast<Double<T>>(static_cast<Double<T>>(a) * b);
}
template <class T>
[[nodiscard]] Double<T> multiply_signed(T a, T b) noexcept {
  using S = std::make_signed_t<T>;
  return static_cast<Double<T>>(
      static_cast<SignedDouble<T>>(static_cast<SignedDouble<T>>(static_cast<S>(a)) * static_cast<S>(b)));
}
template <class T>
[[nodiscard]] T high_half(Double<T> v) noexcept {
  return static_cast<T>(v >> kBits<T>);
}
// Does the product not fit into the low half as a signed number?
template <class T>
[[nodiscard]] bool exceeds(Double<T> product) noexcept {
  const T low = static_cast<T>(product);
  const T sign = (low >> (kBits<T> - 1)) != 0 ? static_cast<T>(~T{0}) : T{0};
  return high_half<T>(product) != sign;
}

// AX, or rDX:rAX.
template <class T>
void set_double(Core& core, Double<T> value) noexcept {
  if constexpr (sizeof(T) == 1) {
    core.set_reg<std::uint16_t>(kOffsetRax, value);
  } else {
    core.set_reg<T>(kOffsetRax, static_cast<T>(value));
    core.set_reg<T>(kOffsetRdx, high_half<T>(value));
  }
}

// SF, ZF, AF and PF are undefined: SF and PF follow the low half.
template <class T, bool kSigned, At kSrc>
const Op* multiply_accumulator(Core& core, const Op* op) {
  T b{};
  if (!read_source<T, kSrc>(core, op, b)) return core.fault();
  const T a = core.reg<T>(kOffsetRax);
  const Double<T> product = kSigned ? multiply_signed<T>(a, b) : multiply<T>(a, b);
  set_double<T>(core, product);
  const bool carry = kSigned ? exceeds<T>(product) : high_half<T>(product) != 0;
  core.flags.set_result<T>(static_cast<T>(product), carry, carry, false);
  return next(core, op);
}

template <class T>
void set_product(Core& core, std::uint8_t dst, T a, T b) noexcept {
  const Double<T> product = multiply_signed<T>(a, b);
  core.set_reg<T>(dst, static_cast<T>(product));
  const bool carry = exceeds<T>(product);
  core.flags.set_result<T>(static_cast<T>(product), carry, carry, false);
}
template <class T, At kSrc>
const Op* multiply_register(Core& core, const Op* op) {
  T b{};
  if (!read_source<T, kSrc>(core, op, b)) return core.fault();
  set_product<T>(core, op->dst, core.reg<T>(op->dst), b);
  return next(core, op);
}
template <class T, At kSrc>
const Op* multiply_immediate(Core& core, const Op* op) {
  T a{};
  if (!read_source<T, kSrc>(core, op, a)) return core.fault();
  set_product<T>(core, op->dst, a, static_cast<T>(op->imm));
  return next(core, op);
}

template <bool kSigned>
bool select_accumulator(Insn& insn, Op& op) {
  return with_size(size_of(insn, 0), [&]<class T>() {
    return with_place(insn, 0, &Op::src, op, [&]<At kSrc>() {
      op.fn = multiply_accumulator<T, kSigned, kSrc>;
      return true;
    });
  });
}

bool select_imul(Insn& insn, Op& op) {
  const unsigned visible = insn.info.operand_count_visible;
  if (visible == 1) return select_accumulator<true>(insn, op);
  op.dst = register_of(insn, 0);
  return with_size_from_16(size_of(insn, 0), [&]<class T>() {
    return with_place(insn, 1, &Op::src, op, [&]<At kSrc>() {
      if (visible == 2) {
        op.fn = multiply_register<T, kSrc>;
      } else {
        op.imm = insn.op(2).imm.value.u;
        op.fn = multiply_immediate<T, kSrc>;
      }
      return true;
    });
  });
}

// dst: high half, aux: low half; the high half wins if both are one register. No flags.
template <class T, At kSrc>
const Op* multiply_without_flags(Core& core, const Op* op) {
  T b{};
  if (!read_source<T, kSrc>(core, op, b)) return core.fault();
  const Double<T> product = multiply<T>(core.reg<T>(kOffsetRdx), b);
  core.set_reg<T>(op->aux, static_cast<T>(product));
  core.set_reg<T>(op->dst, high_half<T>(product));
  return next(core, op);
}
bool select_mulx(Insn& insn, Op& op) {
  op.dst = register_of(insn, 0);
  op.aux = register_of(insn, 1);
  return with_size_from_32(size_of(insn, 0), [&]<class T>() {
    return with_place(insn, 2, &Op::src, op, [&]<At kSrc>() {
      op.fn = multiply_without_flags<T, kSrc>;
      return true;
    });
  });
}

// --- division: flags are undefined and left alone
// ----------------------------------------------------------------------

template <class T>
[[nodiscard]] Double<T> dividend(const Core& core) noexcept {
  if constexpr (sizeof(T) == 1) {
    return core.reg<std::uint16_t>(kOffsetRax);
  } else {
    return static_cast<Double<T>>(static_cast<Double<T>>(core.reg<T>(kOffsetRdx)) << kBits<T> |
                                  core.reg<T>(kOffsetRax));
  }
}
template <class T>
void set_quotient(Core& core, T quotient, T remainder) noexcept {
  if constexpr (sizeof(T) == 1) {
    core.set_reg<std::uint16_t>(kOffsetRax, static_cast<std::uint16_t>(remainder << 8 | quotient));
  } else {
    core.set_reg<T>(kOffsetRax, quotient);
    core.set_reg<T>(kOffsetRdx, remainder);
  }
}

template <class T, At kSrc>
const Op* divide(Core& core, const Op* op) {
  T b{};
  if (!read_source<T, kSrc>(core, op, b)) return core.fault();
  const Double<T> a = dividend<T>(core);
  if (high_half<T>(a) >= b) return core.fault(kVectorDe);  // no room for the quotient; covers b == 0
  if constexpr (sizeof(T) == 8) {
    if (high_half<T>(a) == 0) {  // most divisions: spare the long one
      const T low = static_cast<T>(a);
      set_quotient<T>(core, low / b, low % b);
      return next(core, op);
    }
  }
  set_quotient<T>(core, static_cast<T>(a / b), static_cast<T>(a % b));
  return next(core, op);
}

template <class T, At kSrc>
const Op* divide_signed(Core& core, const Op* op) {
  T divisor{};
  if (!read_source<T, kSrc>(core, op, divisor)) return core.fault();
  // On absolute values, so that the most negative dividend cannot overflow.
  const Double<T> a = dividend<T>(core);
  const bool negative_a = static_cast<SignedDouble<T>>(a) < 0;
  const bool negative_b = static_cast<std::make_signed_t<T>>(divisor) < 0;
  const auto absolute_a = static_cast<Double<T>>(negative_a ? Double<T>{0} - a : a);
  const T b = negative_b ? static_cast<T>(T{0} - divisor) : divisor;
  if (high_half<T>(absolute_a) >= b) return core.fault(kVectorDe);
  const T quotient = static_cast<T>(absolute_a / b);
  const T remainder = static_cast<T>(absolute_a % b);
  const bool negative = negative_a != negative_b;
  constexpr T kMostNegative = static_cast<T>(T{1} << (kBits<T> - 1));
  if (quotient > kMostNegative || (quotient == kMostNegative && !negative)) return core.fault(kVectorDe);
  set_quotient<T>(core, negative ? static_cast<T>(T{0} - quotient) : quotient,
                  negative_a ? static_cast<T>(T{0} - remainder) : remainder);
  return next(core, op);
}

template <bool kSigned>
bool select_divide(Insn& insn, Op& op) {
  return with_size(size_of(insn, 0), [&]<class T>() {
    return with_place(insn, 0, &Op::src, op, [&]<At kSrc>() {
      op.fn = kSigned ? divide_signed<T, kSrc> : divide<T, kSrc>;
      return true;
    });
  });
}

}  // namespace

void add_multiply(SelectorTable& table) {
  table[ZYDIS_MNEMONIC_MUL] = select_accumulator<false>;
  table[ZYDIS_MNEMONIC_IMUL] = select_imul;
  table[ZYDIS_MNEMONIC_MULX] = select_mulx;
  table[ZYDIS_MNEMONIC_DIV] = select_divide<false>;
  table[ZYDIS_MNEMONIC_IDIV] = select_divide<true>;
  add_decimal(table);
}

}  // namespace sevisor::emulator
