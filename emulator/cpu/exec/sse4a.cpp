// SSE4A (APM vol. 4: EXTRQ, INSERTQ, MOVNTSS, MOVNTSD), which Intel's processors do not have: no host code runs it.
#include "emulator/cpu/exec/vector.hpp"

namespace sevisor::emulator {

namespace {

// A field of a quadword: a length of 0 stands for 64. What reaches beyond bit 63 is undefined; here it is cut off.
struct Field {
  unsigned length;
  unsigned index;
  [[nodiscard]] std::uint64_t mask() const {
    return length == 0 ? ~std::uint64_t{0} : (std::uint64_t{1} << length) - 1;
  }
};
Field field_of(std::uint64_t length, std::uint64_t index) {
  return {static_cast<unsigned>(length & 63), static_cast<unsigned>(index & 63)};
}

std::uint64_t low(const Core& core, unsigned n) { return load<std::uint64_t>(core.vec.ymm[n].data()); }
std::uint64_t high(const Core& core, unsigned n) { return load<std::uint64_t>(core.vec.ymm[n].data() + 8); }
// The manual leaves the upper half undefined, Milan clears it.
void set_low(Core& core, unsigned n, std::uint64_t value) {
  store(core.vec.ymm[n].data(), value);
  store(core.vec.ymm[n].data() + 8, std::uint64_t{0});
}

void extract(Core& core, unsigned dst, Field f) { set_low(core, dst, low(core, dst) >> f.index & f.mask()); }
void insert(Core& core, unsigned dst, std::uint64_t value, Field f) {
  const std::uint64_t hole = f.mask() << f.index;
  set_low(core, dst, (low(core, dst) & ~hole) | (value << f.index & hole));
}

// imm: length in bits 7:0, index in bits 15:8.
const Op* op_extrq_immediate(Core& core, const Op* op) {
  if (!sse_available(core)) return core.fault();
  extract(core, op->dst, field_of(op->imm, op->imm >> 8));
  return next(core, op);
}
const Op* op_extrq(Core& core, const Op* op) {
  if (!sse_available(core)) return core.fault();
  const std::uint64_t control = low(core, op->src);
  extract(core, op->dst, field_of(control, control >> 8));
  return next(core, op);
}
const Op* op_insertq_immediate(Core& core, const Op* op) {
  if (!sse_available(core)) return core.fault();
  insert(core, op->dst, low(core, op->src), field_of(op->imm, op->imm >> 8));
  return next(core, op);
}
const Op* op_insertq(Core& core, const Op* op) {
  if (!sse_available(core)) return core.fault();
  const std::uint64_t control = high(core, op->src);
  insert(core, op->dst, low(core, op->src), field_of(control, control >> 8));
  return next(core, op);
}

template <class T>
const Op* op_store_scalar(Core& core, const Op* op) {
  if (!sse_available(core)) return core.fault();
  if (!core.write(core.address(op), load<T>(core.vec.ymm[op->src].data()))) return core.fault();
  return next(core, op);
}

std::uint64_t length_and_index(const Insn& insn, unsigned n) {
  return (insn.op(n).imm.value.u & 0xff) | (insn.op(n + 1).imm.value.u & 0xff) << 8;
}

}  // namespace

bool select_sse4a(Insn& insn, Op& op) {
  switch (insn.info.mnemonic) {
    case ZYDIS_MNEMONIC_MOVNTSS:
    case ZYDIS_MNEMONIC_MOVNTSD:
      set_memory(insn, insn.op(0), op);
      op.src = vector_number(insn, 1);
      op.fn = insn.info.mnemonic == ZYDIS_MNEMONIC_MOVNTSS ? op_store_scalar<std::uint32_t>
                                                           : op_store_scalar<std::uint64_t>;
      return true;
    case ZYDIS_MNEMONIC_EXTRQ:
      op.dst = vector_number(insn, 0);
      if (insn.is_imm(1)) {
        op.imm = length_and_index(insn, 1);
        op.fn = op_extrq_immediate;
      } else {
        op.src = vector_number(insn, 1);
        op.fn = op_extrq;
      }
      return true;
    case ZYDIS_MNEMONIC_INSERTQ:
      op.dst = vector_number(insn, 0);
      op.src = vector_number(insn, 1);
      if (insn.info.operand_count_visible == 4) {
        op.imm = length_and_index(insn, 2);
        op.fn = op_insertq_immediate;
      } else {
        op.fn = op_insertq;
      }
      return true;
    default:
      return false;
  }
}

}  // namespace sevisor::emulator
