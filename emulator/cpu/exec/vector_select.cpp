// Which instructions belong to the vector units, and to which of their files.
#include "emulator/cpu/exec/vector.hpp"
#include "emulator/cpu/state/features.hpp"

namespace sevisor::emulator {

namespace {

enum class Group : std::uint8_t { kNone, kSse, kAvx, kSse4a, kX87, kState, kAbsent };

Group when(bool there, Group group) { return there ? group : Group::kAbsent; }

// Groups of the host's extensions.
Group extension_group(const ZydisDecodedInstruction& info) {
  const HostExtensions& host = host_extensions();
  const bool vex = info.encoding == ZYDIS_INSTRUCTION_ENCODING_VEX;
  const bool wide = info.avx.vector_length > 128;
  switch (info.meta.isa_ext) {
    case ZYDIS_ISA_EXT_MMX:
    case ZYDIS_ISA_EXT_SSE:
    case ZYDIS_ISA_EXT_SSE2:
      return Group::kSse;
    case ZYDIS_ISA_EXT_SSE3:
      return when(host.sse3, info.mnemonic == ZYDIS_MNEMONIC_FISTTP ? Group::kX87 : Group::kSse);
    case ZYDIS_ISA_EXT_SSSE3:
      return when(host.ssse3, Group::kSse);
    case ZYDIS_ISA_EXT_SSE4:
      return when(info.meta.isa_set == ZYDIS_ISA_SET_SSE42 ? host.sse42 : host.sse41, Group::kSse);
    case ZYDIS_ISA_EXT_SSE4A:
      return Group::kSse4a;
    case ZYDIS_ISA_EXT_SHA:
      return when(host.sha, Group::kSse);
    case ZYDIS_ISA_EXT_AES:
      return when(host.aes, Group::kSse);
    case ZYDIS_ISA_EXT_PCLMULQDQ:
      return vex ? when(host.avx && host.pclmulqdq, Group::kAvx) : when(host.pclmulqdq, Group::kSse);
    case ZYDIS_ISA_EXT_AVX:
      // Zydis counts VPCLMULQDQ of XMM registers to AVX.
      return when(host.avx && (info.mnemonic != ZYDIS_MNEMONIC_VPCLMULQDQ || host.pclmulqdq), Group::kAvx);
    case ZYDIS_ISA_EXT_AVXAES:
      return when(host.avx && host.aes, Group::kAvx);
    case ZYDIS_ISA_EXT_AVX2:
    case ZYDIS_ISA_EXT_AVX2GATHER:
      return when(host.avx2, Group::kAvx);
    case ZYDIS_ISA_EXT_FMA:
      return when(host.fma, Group::kAvx);
    case ZYDIS_ISA_EXT_F16C:
      return when(host.f16c, Group::kAvx);
    case ZYDIS_ISA_EXT_VAES:
      return when(vex && wide && host.vaes, Group::kAvx);
    case ZYDIS_ISA_EXT_VPCLMULQDQ:
      return when(vex && wide && host.vpclmulqdq, Group::kAvx);
    case ZYDIS_ISA_EXT_X87:
      return Group::kX87;
    case ZYDIS_ISA_EXT_XSAVE:
    case ZYDIS_ISA_EXT_XSAVEC:
    case ZYDIS_ISA_EXT_XSAVEOPT:
    case ZYDIS_ISA_EXT_XSAVES:
      return Group::kState;
    case ZYDIS_ISA_EXT_AVX512EVEX:  // not advertised
    case ZYDIS_ISA_EXT_AVX512VEX:
    case ZYDIS_ISA_EXT_AVX_VNNI:
    case ZYDIS_ISA_EXT_AMX_BF16:
    case ZYDIS_ISA_EXT_AMX_INT8:
    case ZYDIS_ISA_EXT_AMX_TILE:
    case ZYDIS_ISA_EXT_FMA4:
    case ZYDIS_ISA_EXT_XOP:
    case ZYDIS_ISA_EXT_TBM:
    case ZYDIS_ISA_EXT_GFNI:
    case ZYDIS_ISA_EXT_AMD3DNOW:
    case ZYDIS_ISA_EXT_PADLOCK:
    case ZYDIS_ISA_EXT_KNC:
    case ZYDIS_ISA_EXT_KNCE:
    case ZYDIS_ISA_EXT_KNCV:
    case ZYDIS_ISA_EXT_KEYLOCKER:
    case ZYDIS_ISA_EXT_KEYLOCKER_WIDE:
      return Group::kAbsent;
    default:
      return Group::kNone;
  }
}

Group group_of(const ZydisDecodedInstruction& info) {
  switch (info.mnemonic) {
    case ZYDIS_MNEMONIC_LFENCE:  // in an SSE instruction set by name only
    case ZYDIS_MNEMONIC_MFENCE:
    case ZYDIS_MNEMONIC_SFENCE:
    case ZYDIS_MNEMONIC_CRC32:
    case ZYDIS_MNEMONIC_POPCNT:
    case ZYDIS_MNEMONIC_MOVNTI:
    case ZYDIS_MNEMONIC_XGETBV:
    case ZYDIS_MNEMONIC_XSETBV:
    case ZYDIS_MNEMONIC_PAUSE:
    case ZYDIS_MNEMONIC_PREFETCHNTA:
    case ZYDIS_MNEMONIC_PREFETCHT0:
    case ZYDIS_MNEMONIC_PREFETCHT1:
    case ZYDIS_MNEMONIC_PREFETCHT2:
    case ZYDIS_MNEMONIC_PREFETCH:
    case ZYDIS_MNEMONIC_PREFETCHW:
      return Group::kNone;
    case ZYDIS_MNEMONIC_FXSAVE:
    case ZYDIS_MNEMONIC_FXSAVE64:
    case ZYDIS_MNEMONIC_FXRSTOR:
    case ZYDIS_MNEMONIC_FXRSTOR64:
    case ZYDIS_MNEMONIC_LDMXCSR:
    case ZYDIS_MNEMONIC_STMXCSR:
      return Group::kState;
    case ZYDIS_MNEMONIC_VLDMXCSR:
    case ZYDIS_MNEMONIC_VSTMXCSR:
      return when(host_extensions().avx, Group::kState);
    default:
      return extension_group(info);
  }
}

}  // namespace

bool is_vector(const ZydisDecodedInstruction& info) { return group_of(info) != Group::kNone; }

bool select_vector(Insn& insn, Op& op) {
  switch (group_of(insn.info)) {
    case Group::kSse:
      return select_sse(insn, op);
    case Group::kAvx:
      return select_avx(insn, op);
    case Group::kSse4a:
      return select_sse4a(insn, op);
    case Group::kX87:
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
