// What the integer handlers share: where operands lie, and how a selector turns sizes and forms into template
// arguments.
#pragma once

#include <cstdint>
#include <type_traits>

#include "emulator/cpu/code/decoder.hpp"
#include "emulator/cpu/core.hpp"

namespace sevisor::emulator {

// Where an operand lies; decided once, when the instruction is decoded.
enum class At : std::uint8_t {
  kReg,
  kImm,
  kMem,    // any memory operand
  kPlain,  // memory at base + displacement, 64-bit addresses, no segment base: most of them
};
constexpr bool is_memory(At at) { return at == At::kMem || at == At::kPlain; }

template <class T>
inline constexpr unsigned kBits = 8 * sizeof(T);

// Byte offsets in Core::gpr, as in Op::dst.
inline constexpr std::uint8_t kOffsetRax = 0;
inline constexpr std::uint8_t kOffsetAh = 1;
inline constexpr std::uint8_t kOffsetRcx = 8;
inline constexpr std::uint8_t kOffsetRdx = 16;
inline constexpr std::uint8_t kOffsetRbx = 24;
inline constexpr std::uint8_t kOffsetRsp = 32;
inline constexpr std::uint8_t kOffsetRbp = 40;
inline constexpr std::uint8_t kOffsetRsi = 48;
inline constexpr std::uint8_t kOffsetRdi = 56;

template <At kAt>
[[nodiscard]] inline std::uint64_t address_of(const Core& core, const Op* op) noexcept {
  static_assert(is_memory(kAt));
  if constexpr (kAt == At::kPlain) {
    return core.gpr[op->base] + static_cast<std::uint64_t>(op->disp);
  } else {
    return core.address(op);
  }
}

// Reads the operand in op->src, op->imm or memory. False: faulted.
template <class T, At kAt>
[[nodiscard]] inline bool read_source(Core& core, const Op* op, T& out) noexcept {
  if constexpr (kAt == At::kReg) {
    out = core.reg<T>(op->src);
    return true;
  } else if constexpr (kAt == At::kImm) {
    out = static_cast<T>(op->imm);
    return true;
  } else {
    return core.read<T>(address_of<kAt>(core, op), out);
  }
}

// Replaces the value at `va` by change(value) in one look-up. False: faulted, and `change` was not called.
template <class T, class F>
[[nodiscard]] inline bool modify(Core& core, std::uint64_t va, F change) noexcept {
  if (std::byte* at = core.poke(va, sizeof(T))) [[likely]] {
    store<T>(at, change(load<T>(at)));
    return true;
  }
  T value{};
  if (!core.read_to_modify(va, value)) return false;
  return core.write<T>(va, change(value));
}

// Replaces the operand in op->dst or memory by change(value). False: faulted.
template <class T, At kAt, class F>
[[nodiscard]] inline bool modify_operand(Core& core, const Op* op, F change) noexcept {
  if constexpr (kAt == At::kReg) {
    core.set_reg<T>(op->dst, change(core.reg<T>(op->dst)));
    return true;
  } else {
    return modify<T>(core, address_of<kAt>(core, op), change);
  }
}

// Writes the operand in op->dst or memory. False: faulted.
template <class T, At kAt>
[[nodiscard]] inline bool write_operand(Core& core, const Op* op, T value) noexcept {
  if constexpr (kAt == At::kReg) {
    core.set_reg<T>(op->dst, value);
    return true;
  } else {
    return core.write<T>(address_of<kAt>(core, op), value);
  }
}

// Condition codes as in the low four bits of Jcc, SETcc and CMOVcc opcodes (APM vol. 3, appendix A.1).
template <unsigned kCode>
[[nodiscard]] inline bool condition(const StatusFlags& f) noexcept {
  constexpr bool kNegated = (kCode & 1) != 0;
  constexpr unsigned kTest = kCode >> 1;
  bool value = false;
  if constexpr (kTest == 0) value = f.of();
  if constexpr (kTest == 1) value = f.cf();
  if constexpr (kTest == 2) value = f.zf();
  if constexpr (kTest == 3) value = f.cf() || f.zf();
  if constexpr (kTest == 4) value = f.sf();
  if constexpr (kTest == 5) value = f.pf();
  if constexpr (kTest == 6) value = f.sf() != f.of();
  if constexpr (kTest == 7) value = f.zf() || f.sf() != f.of();
  return value != kNegated;
}

// --- for selectors: each calls `f` with template arguments and returns what it returns, or false for an odd case
// ------

template <class F>
bool with_size(unsigned bits, F f) {
  switch (bits) {
    case 8:
      return f.template operator()<std::uint8_t>();
    case 16:
      return f.template operator()<std::uint16_t>();
    case 32:
      return f.template operator()<std::uint32_t>();
    case 64:
      return f.template operator()<std::uint64_t>();
    default:
      return false;
  }
}
template <class F>
bool with_size_from_16(unsigned bits, F f) {
  switch (bits) {
    case 16:
      return f.template operator()<std::uint16_t>();
    case 32:
      return f.template operator()<std::uint32_t>();
    case 64:
      return f.template operator()<std::uint64_t>();
    default:
      return false;
  }
}
template <class F>
bool with_size_from_32(unsigned bits, F f) {
  switch (bits) {
    case 32:
      return f.template operator()<std::uint32_t>();
    case 64:
      return f.template operator()<std::uint64_t>();
    default:
      return false;
  }
}

template <class F>
bool with_condition(unsigned code, F f) {
  switch (code & 15) {
    case 0:
      return f.template operator()<0>();
    case 1:
      return f.template operator()<1>();
    case 2:
      return f.template operator()<2>();
    case 3:
      return f.template operator()<3>();
    case 4:
      return f.template operator()<4>();
    case 5:
      return f.template operator()<5>();
    case 6:
      return f.template operator()<6>();
    case 7:
      return f.template operator()<7>();
    case 8:
      return f.template operator()<8>();
    case 9:
      return f.template operator()<9>();
    case 10:
      return f.template operator()<10>();
    case 11:
      return f.template operator()<11>();
    case 12:
      return f.template operator()<12>();
    case 13:
      return f.template operator()<13>();
    case 14:
      return f.template operator()<14>();
    default:
      return f.template operator()<15>();
  }
}

[[nodiscard]] inline bool is_general(const Insn& insn, unsigned n) {
  if (!insn.is_reg(n)) return false;
  const ZydisRegisterClass c = ZydisRegisterGetClass(insn.op(n).reg.value);
  return c == ZYDIS_REGCLASS_GPR8 || c == ZYDIS_REGCLASS_GPR16 || c == ZYDIS_REGCLASS_GPR32 ||
         c == ZYDIS_REGCLASS_GPR64;
}
// Operand `n`, a general register, as Op::dst or Op::src wants it.
[[nodiscard]] inline std::uint8_t register_of(const Insn& insn, unsigned n) {
  return register_offset(insn.op(n).reg.value);
}
[[nodiscard]] inline unsigned size_of(const Insn& insn, unsigned n) { return insn.op(n).size; }

// Operand `n`, memory, into `op`.
inline At place_memory(const Insn& insn, unsigned n, Op& op) {
  set_memory(insn, insn.op(n), op);
  const bool plain = op.index == kRegZero && op.segment == kRegZero && op.address_mask == ~std::uint64_t{0};
  return plain ? At::kPlain : At::kMem;
}

// Operand `n`, a general register (into op.*field) or memory.
template <class F>
bool with_place(const Insn& insn, unsigned n, std::uint8_t Op::*field, Op& op, F f) {
  if (is_general(insn, n)) {
    op.*field = register_of(insn, n);
    return f.template operator()<At::kReg>();
  }
  if (!insn.is_mem(n)) return false;
  return place_memory(insn, n, op) == At::kPlain ? f.template operator()<At::kPlain>()
                                                 : f.template operator()<At::kMem>();
}

}  // namespace sevisor::emulator
