// SSE to SSE4.2 and MMX: moves of whole registers are written out, everything else runs in a host stub.
#include <array>

#include "emulator/cpu/exec/vector.hpp"

namespace sevisor::emulator {

namespace {

using Xmm = std::array<std::byte, 16>;
static_assert(sizeof(Xmm) == 16);

Xmm get_xmm(const Core& core, unsigned n) { return load<Xmm>(core.vec.ymm[n].data()); }
void set_xmm(Core& core, unsigned n, const Xmm& value) { store(core.vec.ymm[n].data(), value); }

template <bool kAligned>
const Op* op_move_load(Core& core, const Op* op) {
  if (!sse_available(core)) return core.fault();
  const std::uint64_t va = core.address(op);
  if (kAligned && !vector_aligned(core, va, 16)) return core.fault();
  Xmm value;
  if (!core.read(va, value)) return core.fault();
  set_xmm(core, op->dst, value);
  return next(core, op);
}

template <bool kAligned>
const Op* op_move_store(Core& core, const Op* op) {
  if (!sse_available(core)) return core.fault();
  const std::uint64_t va = core.address(op);
  if (kAligned && !vector_aligned(core, va, 16)) return core.fault();
  if (!core.write(va, get_xmm(core, op->src))) return core.fault();
  return next(core, op);
}

const Op* op_move_registers(Core& core, const Op* op) {
  if (!sse_available(core)) return core.fault();
  set_xmm(core, op->dst, get_xmm(core, op->src));
  return next(core, op);
}

// MASKMOVDQU, MASKMOVQ: the bytes of the first operand whose mask byte has its top bit set, to DS:rDI. `value` and
// `mask` are `size` bytes long.
bool store_masked(Core& core, std::uint64_t va, const std::byte* value, const std::byte* mask, std::size_t size) {
  const auto chosen = [&](std::size_t i) { return (mask[i] & std::byte{0x80}) != std::byte{0}; };
  for (std::size_t i = 0; i < size; ++i) {
    if (chosen(i) && !core.probe_write(va + i, 1)) return false;
  }
  for (std::size_t i = 0; i < size; ++i) {
    if (chosen(i) && !core.write(va + i, value[i])) return false;
  }
  return true;
}

template <bool kVex>
const Op* op_maskmovdqu(Core& core, const Op* op) {
  if (!(kVex ? avx_available(core) : sse_available(core))) return core.fault();
  const auto* value = core.vec.ymm[op->dst].data();
  if (!store_masked(core, core.address(op), value, core.vec.ymm[op->src].data(), 16)) return core.fault();
  return next(core, op);
}

// Makes the x87 state what an MMX instruction makes of it: TOP 0, all registers valid (APM vol. 1, 5.13). The image's
// registers are then in MMX's order.
const Op* op_maskmovq(Core& core, const Op* op) {
  if ((core.cr0 & kCr0Em) != 0) return core.fault(kVectorUd);
  if ((core.cr0 & kCr0Ts) != 0) return core.fault(kVectorNm);
  if (x87_pending(core)) return core.fault(kVectorMf);
  return_x87(core.vec);
  constexpr unsigned kTop = 0x3800;
  const unsigned fsw = x87_field(core, kFxFsw);
  const unsigned top = (fsw & kTop) >> 11;
  std::array<std::byte, 128> mmx;
  for (unsigned i = 0; i < 8; ++i) std::memcpy(&mmx[i * 16], &core.vec.x87[kFxSt + ((i - top) & 7) * 16], 16);
  if (!store_masked(core, core.address(op), &mmx[op->dst * 16U], &mmx[op->src * 16U], 8)) return core.fault();
  std::memcpy(core.vec.x87.data() + kFxSt, mmx.data(), mmx.size());
  set_x87_field(core, kFxFsw, fsw & ~kTop);
  store(core.vec.x87.data() + kFxFtw, std::uint8_t{0xff});
  return next(core, op);
}

bool select_move(const Insn& insn, Op& op, bool aligned) {
  if (insn.is_mem(1)) {
    op.dst = vector_number(insn, 0);
    set_memory(insn, insn.op(1), op);
    op.fn = aligned ? op_move_load<true> : op_move_load<false>;
  } else if (insn.is_mem(0)) {
    op.src = vector_number(insn, 1);
    set_memory(insn, insn.op(0), op);
    op.fn = aligned ? op_move_store<true> : op_move_store<false>;
  } else {
    op.dst = vector_number(insn, 0);
    op.src = vector_number(insn, 1);
    op.fn = op_move_registers;
  }
  return true;
}

bool select_masked_move(const Insn& insn, Op& op, Handler fn) {
  for (unsigned n = 0; n < insn.info.operand_count; ++n) {
    if (insn.is_mem(n)) set_memory(insn, insn.op(n), op);
  }
  op.dst = vector_number(insn, 0);
  op.src = vector_number(insn, 1);
  op.fn = fn;
  return true;
}

}  // namespace

bool select_sse(Insn& insn, Op& op) {
  switch (insn.info.mnemonic) {
    case ZYDIS_MNEMONIC_MOVAPS:
    case ZYDIS_MNEMONIC_MOVAPD:
    case ZYDIS_MNEMONIC_MOVDQA:
    case ZYDIS_MNEMONIC_MOVNTDQ:
    case ZYDIS_MNEMONIC_MOVNTPS:
    case ZYDIS_MNEMONIC_MOVNTPD:
    case ZYDIS_MNEMONIC_MOVNTDQA:
      return select_move(insn, op, true);
    case ZYDIS_MNEMONIC_MOVUPS:
    case ZYDIS_MNEMONIC_MOVUPD:
    case ZYDIS_MNEMONIC_MOVDQU:
    case ZYDIS_MNEMONIC_LDDQU:
      return select_move(insn, op, false);
    case ZYDIS_MNEMONIC_MASKMOVDQU:
      return select_masked_move(insn, op, op_maskmovdqu<false>);
    case ZYDIS_MNEMONIC_VMASKMOVDQU:
      return select_masked_move(insn, op, op_maskmovdqu<true>);
    case ZYDIS_MNEMONIC_MASKMOVQ:
      return select_masked_move(insn, op, op_maskmovq);
    default:
      break;
  }
  StubTraits traits;
  if (!make_stub(insn, op, traits)) return false;
  use_stub(traits, op);
  return true;
}

}  // namespace sevisor::emulator
