// BT, BTS, BTR, BTC; BSF, BSR, TZCNT, LZCNT, POPCNT; CRC32; ADCX, ADOX. BMI1 and BMI2: exec/bits_vex.cpp.
#include "emulator/cpu/exec/bits.hpp"

#include <array>
#include <bit>

#include "emulator/cpu/exec/forms.hpp"

namespace sevisor::emulator {

namespace {

enum class BitChange : std::uint8_t { kNone, kSet, kReset, kComplement };

template <BitChange kChange, class T>
[[nodiscard]] T changed(T value, T bit) noexcept {
  if constexpr (kChange == BitChange::kSet) return value | bit;
  if constexpr (kChange == BitChange::kReset) return static_cast<T>(value & ~bit);
  if constexpr (kChange == BitChange::kComplement) return value ^ bit;
  return value;
}

// Where the bit's number comes from. In memory, a register's number counts bits from the operand's address, either way.
enum class BitNumber : std::uint8_t { kImmediate, kRegister };

template <class T, BitNumber kNumber>
[[nodiscard]] std::uint64_t bit_address(const Core& core, const Op* op) noexcept {
  if constexpr (kNumber == BitNumber::kImmediate) return core.address(op);
  constexpr unsigned kShift = std::countr_zero(kBits<T>);
  const auto number = static_cast<std::int64_t>(static_cast<std::make_signed_t<T>>(core.reg<T>(op->src)));
  const auto displacement = static_cast<std::uint64_t>((number >> kShift) * static_cast<std::int64_t>(sizeof(T)));
  const std::uint64_t offset =
      core.gpr[op->base] + (core.gpr[op->index] << op->scale) + static_cast<std::uint64_t>(op->disp) + displacement;
  return (offset & op->address_mask) + core.gpr[op->segment];
}

template <BitChange kChange, class T, bool kMemory, BitNumber kNumber>
const Op* bit_test(Core& core, const Op* op) {
  const T number = kNumber == BitNumber::kImmediate ? static_cast<T>(op->imm) : core.reg<T>(op->src);
  const T bit = static_cast<T>(T{1} << (number & (kBits<T> - 1)));
  T before{};
  if constexpr (kMemory) {
    const std::uint64_t va = bit_address<T, kNumber>(core, op);
    if constexpr (kChange == BitChange::kNone) {
      if (!core.read<T>(va, before)) return core.fault();
    } else {
      const bool done = modify<T>(core, va, [&](T v) {
        before = v;
        return changed<kChange, T>(v, bit);
      });
      if (!done) return core.fault();
    }
  } else {
    before = core.reg<T>(op->dst);
    if constexpr (kChange != BitChange::kNone) core.set_reg<T>(op->dst, changed<kChange, T>(before, bit));
  }
  core.flags.set_cf((before & bit) != 0);
  return next(core, op);
}

template <BitChange kChange>
bool select_bit_test(Insn& insn, Op& op) {
  return with_size_from_16(size_of(insn, 0), [&]<class T>() {
    const bool memory = insn.is_mem(0);
    if (memory) {
      set_memory(insn, insn.op(0), op);
    } else {
      op.dst = register_of(insn, 0);
    }
    if (insn.is_imm(1)) {
      op.imm = insn.op(1).imm.value.u;
      op.fn = memory ? bit_test<kChange, T, true, BitNumber::kImmediate>
                     : bit_test<kChange, T, false, BitNumber::kImmediate>;
    } else {
      op.src = register_of(insn, 1);
      op.fn =
          memory ? bit_test<kChange, T, true, BitNumber::kRegister> : bit_test<kChange, T, false, BitNumber::kRegister>;
    }
    return true;
  });
}

// BSF and BSR of 0 set ZF and leave the destination as it is.
struct ScanForward {
  template <class T>
  static void run(Core& core, std::uint8_t dst, T value) noexcept {
    if (value != 0) core.set_reg<T>(dst, static_cast<T>(std::countr_zero(value)));
    core.flags.set_logic<T>(value);
  }
};
struct ScanReverse {
  template <class T>
  static void run(Core& core, std::uint8_t dst, T value) noexcept {
    if (value != 0) core.set_reg<T>(dst, static_cast<T>(kBits<T> - 1 - static_cast<unsigned>(std::countl_zero(value))));
    core.flags.set_logic<T>(value);
  }
};
struct CountTrailing {
  template <class T>
  static void run(Core& core, std::uint8_t dst, T value) noexcept {
    const T result = static_cast<T>(std::countr_zero(value));
    core.set_reg<T>(dst, result);
    core.flags.set_result<T>(result, value == 0, false, false);
  }
};
struct CountLeading {
  template <class T>
  static void run(Core& core, std::uint8_t dst, T value) noexcept {
    const T result = static_cast<T>(std::countl_zero(value));
    core.set_reg<T>(dst, result);
    core.flags.set_result<T>(result, value == 0, false, false);
  }
};
struct CountOnes {
  template <class T>
  static void run(Core& core, std::uint8_t dst, T value) noexcept {
    core.set_reg<T>(dst, static_cast<T>(std::popcount(value)));
    core.flags.set_rflags(value == 0 ? kFlagZf : 0);
  }
};

template <class Operation, class T, At kSrc>
const Op* scan(Core& core, const Op* op) {
  T value{};
  if (!read_source<T, kSrc>(core, op, value)) return core.fault();
  Operation::template run<T>(core, op->dst, value);
  return next(core, op);
}
template <class Operation>
bool select_scan(Insn& insn, Op& op) {
  op.dst = register_of(insn, 0);
  return with_size_from_16(size_of(insn, 0), [&]<class T>() {
    return with_place(insn, 1, &Op::src, op, [&]<At kSrc>() {
      op.fn = scan<Operation, T, kSrc>;
      return true;
    });
  });
}

// Castagnoli's polynomial, bits reversed.
constexpr std::uint32_t kCrc32cPolynomial = 0x82f63b78;
constexpr std::array<std::uint32_t, 256> kCrc32c = [] {
  std::array<std::uint32_t, 256> table{};
  for (std::uint32_t n = 0; n < table.size(); ++n) {
    std::uint32_t v = n;
    for (int bit = 0; bit < 8; ++bit) v = (v >> 1) ^ ((v & 1) != 0 ? kCrc32cPolynomial : 0);
    table[n] = v;
  }
  return table;
}();

template <class T, At kSrc>
const Op* crc32(Core& core, const Op* op) {
  T value{};
  if (!read_source<T, kSrc>(core, op, value)) return core.fault();
  auto crc = core.reg<std::uint32_t>(op->dst);
  for (unsigned n = 0; n < sizeof(T); ++n) {
    crc = (crc >> 8) ^ kCrc32c[(crc ^ static_cast<std::uint32_t>(static_cast<std::uint64_t>(value) >> (8 * n))) & 0xff];
  }
  core.set_reg<std::uint32_t>(op->dst, crc);
  return next(core, op);
}
bool select_crc32(Insn& insn, Op& op) {
  op.dst = register_of(insn, 0);
  return with_size(size_of(insn, 1), [&]<class T>() {
    return with_place(insn, 1, &Op::src, op, [&]<At kSrc>() {
      op.fn = crc32<T, kSrc>;
      return true;
    });
  });
}

// ADCX carries through CF alone, ADOX through OF.
template <class T, bool kThroughOf, At kSrc>
const Op* add_chained(Core& core, const Op* op) {
  T b{};
  if (!read_source<T, kSrc>(core, op, b)) return core.fault();
  const T a = core.reg<T>(op->dst);
  T sum{};
  const bool first = __builtin_add_overflow(a, b, &sum);
  const T carry = (kThroughOf ? core.flags.of() : core.flags.cf()) ? 1 : 0;
  const bool second = __builtin_add_overflow(sum, carry, &sum);
  core.set_reg<T>(op->dst, sum);
  if constexpr (kThroughOf) {
    core.flags.set_of(first || second);
  } else {
    core.flags.set_cf(first || second);
  }
  return next(core, op);
}
template <bool kThroughOf>
bool select_chained(Insn& insn, Op& op) {
  op.dst = register_of(insn, 0);
  return with_size_from_32(size_of(insn, 0), [&]<class T>() {
    return with_place(insn, 1, &Op::src, op, [&]<At kSrc>() {
      op.fn = add_chained<T, kThroughOf, kSrc>;
      return true;
    });
  });
}

}  // namespace

void add_bits(SelectorTable& table) {
  table[ZYDIS_MNEMONIC_BT] = select_bit_test<BitChange::kNone>;
  table[ZYDIS_MNEMONIC_BTS] = select_bit_test<BitChange::kSet>;
  table[ZYDIS_MNEMONIC_BTR] = select_bit_test<BitChange::kReset>;
  table[ZYDIS_MNEMONIC_BTC] = select_bit_test<BitChange::kComplement>;
  table[ZYDIS_MNEMONIC_BSF] = select_scan<ScanForward>;
  table[ZYDIS_MNEMONIC_BSR] = select_scan<ScanReverse>;
  table[ZYDIS_MNEMONIC_TZCNT] = select_scan<CountTrailing>;
  table[ZYDIS_MNEMONIC_LZCNT] = select_scan<CountLeading>;
  table[ZYDIS_MNEMONIC_POPCNT] = select_scan<CountOnes>;
  table[ZYDIS_MNEMONIC_CRC32] = select_crc32;
  table[ZYDIS_MNEMONIC_ADCX] = select_chained<false>;
  table[ZYDIS_MNEMONIC_ADOX] = select_chained<true>;
  add_vex_bits(table);
}

}  // namespace sevisor::emulator
