#include "emulator/cpu/vector.hpp"

namespace sevisor::emulator {

namespace {

enum class Group : std::uint8_t { kNone, kSse, kX87, kMmx, kState, kAbsent };

Group group_of(const ZydisDecodedInstruction& info) {
  switch (info.mnemonic) {  // in an SSE instruction set by name only
    case ZYDIS_MNEMONIC_LFENCE:
    case ZYDIS_MNEMONIC_MFENCE:
    case ZYDIS_MNEMONIC_SFENCE:
    case ZYDIS_MNEMONIC_CRC32:
    case ZYDIS_MNEMONIC_POPCNT:
    case ZYDIS_MNEMONIC_MOVNTI:
    case ZYDIS_MNEMONIC_XGETBV:
    case ZYDIS_MNEMONIC_XSETBV:
    case ZYDIS_MNEMONIC_PAUSE:
      return Group::kNone;
    default:
      break;
  }
  switch (info.meta.isa_set) {
    case ZYDIS_ISA_SET_SSE:
    case ZYDIS_ISA_SET_SSE2:
    case ZYDIS_ISA_SET_SSE3:
    case ZYDIS_ISA_SET_SSSE3:
    case ZYDIS_ISA_SET_SSE4:
    case ZYDIS_ISA_SET_SSE42:
    case ZYDIS_ISA_SET_SSE2MMX:
      return Group::kSse;
    case ZYDIS_ISA_SET_PENTIUMMMX:
    case ZYDIS_ISA_SET_SSSE3MMX:
      return Group::kMmx;
    case ZYDIS_ISA_SET_X87:
    case ZYDIS_ISA_SET_SSE3X87:
    case ZYDIS_ISA_SET_FCMOV:
      return Group::kX87;
    case ZYDIS_ISA_SET_FXSAVE:
    case ZYDIS_ISA_SET_FXSAVE64:
    case ZYDIS_ISA_SET_XSAVE:
    case ZYDIS_ISA_SET_XSAVEC:
    case ZYDIS_ISA_SET_XSAVEOPT:
    case ZYDIS_ISA_SET_XSAVES:
    case ZYDIS_ISA_SET_SSEMXCSR:
      return Group::kState;
    default:
      break;
  }
  switch (info.meta.isa_ext) {  // vector extensions that CPUID does not advertise
    case ZYDIS_ISA_EXT_AVX:
    case ZYDIS_ISA_EXT_AVX2:
    case ZYDIS_ISA_EXT_AVX2GATHER:
    case ZYDIS_ISA_EXT_AVX512EVEX:
    case ZYDIS_ISA_EXT_AVX512VEX:
    case ZYDIS_ISA_EXT_AVXAES:
    case ZYDIS_ISA_EXT_F16C:
    case ZYDIS_ISA_EXT_FMA:
    case ZYDIS_ISA_EXT_FMA4:
    case ZYDIS_ISA_EXT_XOP:
    case ZYDIS_ISA_EXT_AES:
    case ZYDIS_ISA_EXT_PCLMULQDQ:
    case ZYDIS_ISA_EXT_SHA:
    case ZYDIS_ISA_EXT_SSE4A:
    case ZYDIS_ISA_EXT_AMD3DNOW:
    case ZYDIS_ISA_EXT_GFNI:
      return Group::kAbsent;
    default:
      return Group::kNone;
  }
}

// MMX registers among the operands make any instruction one of the x87 unit.
bool uses_mmx(const Insn& insn) {
  for (unsigned n = 0; n < insn.info.operand_count; ++n) {
    if (insn.is_reg(n) && ZydisRegisterGetClass(insn.op(n).reg.value) == ZYDIS_REGCLASS_MMX) return true;
  }
  return false;
}

}  // namespace

bool is_vector(const ZydisDecodedInstruction& info) { return group_of(info) != Group::kNone; }

bool select_vector(Insn& insn, Op& op) {
  switch (group_of(insn.info)) {
    case Group::kSse:
      return uses_mmx(insn) ? select_x87(insn, op) : select_sse(insn, op);
    case Group::kX87:
    case Group::kMmx:
      return select_x87(insn, op);
    case Group::kState:
      return select_state(insn, op);
    case Group::kAbsent:
      op.fn = op_undefined;
      insn.ends_block = true;
      return true;
    case Group::kNone:
      break;
  }
  return false;
}

}  // namespace sevisor::emulator
