// AVX, AVX2, FMA, F16C and the VEX forms of AES and PCLMULQDQ: whole moves and VZEROALL, VZEROUPPER are written out,
// masked moves are in exec/avx_masked.cpp, everything else runs in a host stub.
#include <array>
#include <cstring>

#include "emulator/cpu/exec/avx_masked.hpp"
#include "emulator/cpu/exec/vector.hpp"

namespace sevisor::emulator {

namespace {

constexpr std::size_t kYmmBytes = 32;
template <std::size_t kSize>
using Bytes = std::array<std::byte, kSize>;

template <std::size_t kSize>
void set_vector(Core& core, unsigned n, const Bytes<kSize>& value) {
  std::byte* to = core.vec.ymm[n].data();
  store(to, value);
  if constexpr (kSize < kYmmBytes) store(to + kSize, Bytes<kYmmBytes - kSize>{});
}

// VMOVAPS and their like, `kSize` bytes 16 or 32.
template <std::size_t kSize, bool kAligned>
const Op* op_load(Core& core, const Op* op) {
  if (!avx_available(core)) return core.fault();
  const std::uint64_t va = core.address(op);
  if (kAligned && !vector_aligned(core, va, kSize)) return core.fault();
  Bytes<kSize> value;
  if (!core.read(va, value)) return core.fault();
  set_vector(core, op->dst, value);
  return next(core, op);
}

template <std::size_t kSize, bool kAligned>
const Op* op_store(Core& core, const Op* op) {
  if (!avx_available(core)) return core.fault();
  const std::uint64_t va = core.address(op);
  if (kAligned && !vector_aligned(core, va, kSize)) return core.fault();
  if (!core.write(va, load<Bytes<kSize>>(core.vec.ymm[op->src].data()))) return core.fault();
  return next(core, op);
}

template <std::size_t kSize>
const Op* op_move(Core& core, const Op* op) {
  if (!avx_available(core)) return core.fault();
  set_vector(core, op->dst, load<Bytes<kSize>>(core.vec.ymm[op->src].data()));
  return next(core, op);
}

template <std::size_t kSize>
bool select_sized_move(const Insn& insn, Op& op, bool aligned) {
  if (insn.is_mem(1)) {
    op.dst = vector_number(insn, 0);
    set_memory(insn, insn.op(1), op);
    op.fn = aligned ? op_load<kSize, true> : op_load<kSize, false>;
  } else if (insn.is_mem(0)) {
    op.src = vector_number(insn, 1);
    set_memory(insn, insn.op(0), op);
    op.fn = aligned ? op_store<kSize, true> : op_store<kSize, false>;
  } else {
    op.dst = vector_number(insn, 0);
    op.src = vector_number(insn, 1);
    op.fn = op_move<kSize>;
  }
  return true;
}
bool select_move(const Insn& insn, Op& op, bool aligned) {
  return insn.info.avx.vector_length == 256 ? select_sized_move<kYmmBytes>(insn, op, aligned)
                                            : select_sized_move<16>(insn, op, aligned);
}

// In 32-bit code only the first eight registers are touched.
template <bool kAll>
const Op* op_zero(Core& core, const Op* op) {
  if (!avx_available(core)) return core.fault();
  const std::size_t count = core.code64 ? 16 : 8;
  constexpr std::size_t kFrom = kAll ? 0 : 16;
  for (std::size_t n = 0; n < count; ++n) std::memset(core.vec.ymm[n].data() + kFrom, 0, kYmmBytes - kFrom);
  return next(core, op);
}

// VPEXTRQ and VPINSRQ: VEX.W is not just ignored in 32-bit code, as Zydis takes it to be.
bool is_64_bit_only(const Insn& insn) {
  const bool named = insn.info.mnemonic == ZYDIS_MNEMONIC_VPEXTRD || insn.info.mnemonic == ZYDIS_MNEMONIC_VPINSRD;
  return named && insn.info.raw.vex.W != 0;
}

}  // namespace

bool select_avx(Insn& insn, Op& op) {
  switch (insn.info.mnemonic) {
    case ZYDIS_MNEMONIC_VMOVAPS:
    case ZYDIS_MNEMONIC_VMOVAPD:
    case ZYDIS_MNEMONIC_VMOVDQA:
    case ZYDIS_MNEMONIC_VMOVNTDQ:
    case ZYDIS_MNEMONIC_VMOVNTPS:
    case ZYDIS_MNEMONIC_VMOVNTPD:
    case ZYDIS_MNEMONIC_VMOVNTDQA:
      return select_move(insn, op, true);
    case ZYDIS_MNEMONIC_VMOVUPS:
    case ZYDIS_MNEMONIC_VMOVUPD:
    case ZYDIS_MNEMONIC_VMOVDQU:
    case ZYDIS_MNEMONIC_VLDDQU:
      return select_move(insn, op, false);
    case ZYDIS_MNEMONIC_VZEROALL:
      op.fn = op_zero<true>;
      return true;
    case ZYDIS_MNEMONIC_VZEROUPPER:
      op.fn = op_zero<false>;
      return true;
    case ZYDIS_MNEMONIC_VMASKMOVDQU:
      return select_sse(insn, op);
    default:
      break;
  }
  if (is_64_bit_only(insn)) {
    insn.ends_block = true;
    op.fn = op_undefined;
    return true;
  }
  if (select_avx_masked(insn, op)) return true;
  StubTraits traits;
  if (!make_stub(insn, op, traits)) return false;
  use_stub(traits, op);
  return true;
}

}  // namespace sevisor::emulator
