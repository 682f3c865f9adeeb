// XCHG, XADD, CMPXCHG, CMPXCHG8B and CMPXCHG16B. A LOCK prefix needs nothing more: vCPUs take turns between blocks.
#include <array>

#include "emulator/cpu/exec/forms.hpp"
#include "emulator/cpu/exec/integer.hpp"

namespace sevisor::emulator {

namespace {

template <class T, At kDst>
const Op* exchange(Core& core, const Op* op) {
  T value = core.reg<T>(op->src);
  if constexpr (kDst == At::kReg) {
    core.set_reg<T>(op->src, core.reg<T>(op->dst));
    core.set_reg<T>(op->dst, value);
  } else {
    T old{};
    const bool done = modify<T>(core, address_of<kDst>(core, op), [&](T v) {
      old = v;
      return value;
    });
    if (!done) return core.fault();
    core.set_reg<T>(op->src, old);
  }
  return next(core, op);
}

template <class T, At kDst>
const Op* exchange_add(Core& core, const Op* op) {
  const T b = core.reg<T>(op->src);
  T a{};
  const auto add = [&](T v) {
    a = v;
    return static_cast<T>(v + b);
  };
  if constexpr (kDst == At::kReg) {
    const T sum = add(core.reg<T>(op->dst));
    core.set_reg<T>(op->src, a);
    core.set_reg<T>(op->dst, sum);  // last: it wins if both are the same register
  } else {
    if (!modify<T>(core, address_of<kDst>(core, op), add)) return core.fault();
    core.set_reg<T>(op->src, a);
  }
  core.flags.set_add<T>(a, b, static_cast<T>(a + b));
  return next(core, op);
}

// Memory is written in any case, with its old value if the comparison failed, and must be writable. A register is not:
// then its upper half stays.
template <class T, At kDst>
const Op* compare_exchange(Core& core, const Op* op) {
  const T accumulator = core.reg<T>(kOffsetRax);
  const T desired = core.reg<T>(op->src);
  T old{};
  if constexpr (kDst == At::kReg) {
    old = core.reg<T>(op->dst);
    if (old == accumulator) core.set_reg<T>(op->dst, desired);
  } else {
    const bool done = modify<T>(core, address_of<kDst>(core, op), [&](T v) {
      old = v;
      return v == accumulator ? desired : v;
    });
    if (!done) return core.fault();
  }
  core.flags.set_sub<T>(accumulator, old, static_cast<T>(accumulator - old));
  if (old != accumulator) core.set_reg<T>(kOffsetRax, old);
  return next(core, op);
}

template <template <class, At> class Maker>
bool select_exchange(Insn& insn, Op& op) {
  return with_size(size_of(insn, 0), [&]<class T>() {
    // XCHG is symmetric: the memory operand may be printed second.
    const unsigned place = insn.is_mem(1) ? 1 : 0;
    op.src = register_of(insn, 1 - place);
    return with_place(insn, place, &Op::dst, op, [&]<At kDst>() {
      op.fn = Maker<T, kDst>::kHandler;
      return true;
    });
  });
}
template <class T, At kDst>
struct ExchangeMaker {
  static constexpr Handler kHandler = exchange<T, kDst>;
};
template <class T, At kDst>
struct ExchangeAddMaker {
  static constexpr Handler kHandler = exchange_add<T, kDst>;
};
template <class T, At kDst>
struct CompareExchangeMaker {
  static constexpr Handler kHandler = compare_exchange<T, kDst>;
};

// T: half of the operand. CMPXCHG16B wants it aligned.
template <class T>
const Op* compare_exchange_pair(Core& core, const Op* op) {
  using Pair = std::array<T, 2>;
  const std::uint64_t va = core.address(op);
  if (sizeof(T) == 8 && (va & 15) != 0) return core.fault(kVectorGp, 0);
  const Pair expected = {core.reg<T>(kOffsetRax), core.reg<T>(kOffsetRdx)};
  const Pair desired = {core.reg<T>(kOffsetRbx), core.reg<T>(kOffsetRcx)};
  Pair old{};
  const bool done = modify<Pair>(core, va, [&](Pair v) {
    old = v;
    return v == expected ? desired : v;
  });
  if (!done) return core.fault();
  core.flags.set_zf(old == expected);
  if (old != expected) {
    core.set_reg<T>(kOffsetRax, old[0]);
    core.set_reg<T>(kOffsetRdx, old[1]);
  }
  return next(core, op);
}
template <class T>
bool select_pair(Insn& insn, Op& op) {
  set_memory(insn, insn.op(0), op);
  op.fn = compare_exchange_pair<T>;
  return true;
}

}  // namespace

void add_exchanges(SelectorTable& table) {
  table[ZYDIS_MNEMONIC_XCHG] = select_exchange<ExchangeMaker>;
  table[ZYDIS_MNEMONIC_XADD] = select_exchange<ExchangeAddMaker>;
  table[ZYDIS_MNEMONIC_CMPXCHG] = select_exchange<CompareExchangeMaker>;
  table[ZYDIS_MNEMONIC_CMPXCHG8B] = select_pair<std::uint32_t>;
  table[ZYDIS_MNEMONIC_CMPXCHG16B] = select_pair<std::uint64_t>;
}

}  // namespace sevisor::emulator
