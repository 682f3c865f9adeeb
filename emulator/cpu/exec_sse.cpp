// SSE to SSE4.2. Moves of whole registers are written out, everything else runs in a host stub.
#include <array>
#include <cstring>

#include "emulator/cpu/host_stubs.hpp"
#include "emulator/cpu/vector.hpp"

#if defined(__clang__)
// The stubs are no C++ functions: they carry no type for -fsanitize=function to check.
#define SEVISOR_CALLS_STUB __attribute__((no_sanitize("function")))
#else
#define SEVISOR_CALLS_STUB
#endif

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
  if (kAligned && (va & 15) != 0) return core.fault(kVectorGp, 0);
  Xmm value;
  if (!core.read(va, value)) return core.fault();
  set_xmm(core, op->dst, value);
  return op + 1;
}

template <bool kAligned>
const Op* op_move_store(Core& core, const Op* op) {
  if (!sse_available(core)) return core.fault();
  const std::uint64_t va = core.address(op);
  if (kAligned && (va & 15) != 0) return core.fault(kVectorGp, 0);
  if (!core.write(va, get_xmm(core, op->src))) return core.fault();
  return op + 1;
}

const Op* op_move_registers(Core& core, const Op* op) {
  if (!sse_available(core)) return core.fault();
  set_xmm(core, op->dst, get_xmm(core, op->src));
  return op + 1;
}

SEVISOR_CALLS_STUB std::uint64_t call(Core& core, const Op* op, std::byte* memory) {
  HostStub stub;
  static_assert(sizeof stub == sizeof op->imm);
  std::memcpy(&stub, &op->imm, sizeof stub);
  return stub(&core.vec, memory, core.gpr.data());
}

// An unmasked exception stores no result (APM vol. 1, 4.10): everything as before but for the flags in MXCSR.
const Op* run_unmasked(Core& core, const Op* op, std::byte* memory, std::uint64_t& host_flags) {
  const std::uint32_t before = core.vec.mxcsr;
  const auto saved_ymm = core.vec.ymm;
  const auto saved_gpr = core.gpr;
  core.vec.mxcsr = (before & ~kMxcsrFlags) | kMxcsrFlags << kMxcsrMaskShift;
  host_flags = call(core, op, memory);
  const std::uint32_t raised = core.vec.mxcsr & kMxcsrFlags;
  core.vec.mxcsr = before | raised;
  if ((raised & ~(before >> kMxcsrMaskShift)) == 0) return op;
  core.vec.ymm = saved_ymm;
  core.gpr = saved_gpr;
  return core.fault((core.cr4 & kCr4Osxmmexcpt) != 0 ? kVectorXf : kVectorUd);
}

const Op* op_stub(Core& core, const Op* op) {
  if (!sse_available(core)) return core.fault();
  alignas(16) std::array<std::byte, kStubMemorySize> memory;
  std::uint64_t va = 0;
  if ((op->aux & kStubMemory) != 0) {
    va = core.address(op);
    if ((op->aux & kStubAligned) != 0 && (va & 15) != 0) return core.fault(kVectorGp, 0);
    if ((op->aux & kStubReads) != 0) {
      if (const std::byte* direct = core.peek(va, op->bits)) {
        std::memcpy(memory.data(), direct, op->bits);
      } else if (!core.read_slow(va, memory.data(), op->bits)) {
        return core.fault();
      }
    }
  }
  std::uint64_t host_flags = 0;
  const bool all_masked = (core.vec.mxcsr >> kMxcsrMaskShift & kMxcsrFlags) == kMxcsrFlags;
  if ((op->aux & kStubFloat) != 0 && !all_masked) [[unlikely]] {
    if (run_unmasked(core, op, memory.data(), host_flags) == nullptr) return nullptr;
  } else {
    host_flags = call(core, op, memory.data());
  }
  if ((op->aux & kStubWrites) != 0) {
    if (std::byte* direct = core.poke(va, op->bits)) {
      std::memcpy(direct, memory.data(), op->bits);
    } else if (!core.write_slow(va, memory.data(), op->bits)) {
      return core.fault();
    }
  }
  if ((op->aux & kStubFlagsOut) != 0) core.flags.set_rflags(host_flags);
  return op + 1;
}

// MASKMOVDQU: the bytes of the first operand whose mask byte has its top bit set, to DS:rDI.
const Op* op_maskmovdqu(Core& core, const Op* op) {
  if (!sse_available(core)) return core.fault();
  const std::uint64_t va = core.address(op);
  const Xmm value = get_xmm(core, op->dst);
  const Xmm mask = get_xmm(core, op->src);
  const auto chosen = [&](std::size_t i) { return (mask[i] & std::byte{0x80}) != std::byte{0}; };
  for (std::size_t i = 0; i < value.size(); ++i) {
    if (chosen(i) && !core.probe_write(va + i, 1)) return core.fault();
  }
  for (std::size_t i = 0; i < value.size(); ++i) {
    if (chosen(i) && !core.write(va + i, value[i])) return core.fault();
  }
  return op + 1;
}

std::uint8_t xmm_number(const ZydisDecodedOperand& o) {
  return static_cast<std::uint8_t>(ZydisRegisterGetId(o.reg.value));
}

bool select_move(const Insn& insn, Op& op, bool aligned) {
  if (insn.is_mem(1)) {
    op.dst = xmm_number(insn.op(0));
    set_memory(insn, insn.op(1), op);
    op.fn = aligned ? op_move_load<true> : op_move_load<false>;
  } else if (insn.is_mem(0)) {
    op.src = xmm_number(insn.op(1));
    set_memory(insn, insn.op(0), op);
    op.fn = aligned ? op_move_store<true> : op_move_store<false>;
  } else {
    op.dst = xmm_number(insn.op(0));
    op.src = xmm_number(insn.op(1));
    op.fn = op_move_registers;
  }
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
      for (unsigned n = 0; n < insn.info.operand_count; ++n) {
        if (insn.is_mem(n)) set_memory(insn, insn.op(n), op);
      }
      op.dst = static_cast<std::uint8_t>(insn.info.raw.modrm.reg | (insn.info.raw.rex.R << 3));
      op.src = static_cast<std::uint8_t>(insn.info.raw.modrm.rm | (insn.info.raw.rex.B << 3));
      op.fn = op_maskmovdqu;
      return true;
    default:
      break;
  }
  if (!make_stub(insn, op)) return false;
  op.fn = op_stub;
  return true;
}

}  // namespace sevisor::emulator
