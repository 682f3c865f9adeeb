#include "emulator/kvm/emulation_limits.hpp"

#include <Zydis/Zydis.h>
#include <algorithm>
#include <array>
#include <optional>

#include "base/bytes.hpp"

namespace sevisor::emulator {

namespace {

struct Decoded {
  ZydisDecodedInstruction info;
  std::array<ZydisDecodedOperand, ZYDIS_MAX_OPERAND_COUNT> operands;
};

std::optional<Decoded> decode(std::span<const std::uint8_t> bytes, unsigned code_bits) {
  const bool code64 = code_bits == 64;
  const bool code32 = code_bits == 32;
  ZydisDecoder decoder;
  ZydisDecoderInit(&decoder,
                   code64   ? ZYDIS_MACHINE_MODE_LONG_64
                   : code32 ? ZYDIS_MACHINE_MODE_LEGACY_32
                            : ZYDIS_MACHINE_MODE_LEGACY_16,
                   code64   ? ZYDIS_STACK_WIDTH_64
                   : code32 ? ZYDIS_STACK_WIDTH_32
                            : ZYDIS_STACK_WIDTH_16);
  Decoded decoded;
  const ZyanStatus status =
      ZydisDecoderDecodeFull(&decoder, bytes.data(), bytes.size(), &decoded.info, decoded.operands.data());
  return ZYAN_SUCCESS(status) ? std::optional(decoded) : std::nullopt;
}

// What it has beyond the integer set.
constexpr ZydisMnemonic kMoves[] = {
    ZYDIS_MNEMONIC_MOVAPS,  ZYDIS_MNEMONIC_MOVUPS,  ZYDIS_MNEMONIC_MOVAPD,  ZYDIS_MNEMONIC_MOVUPD,
    ZYDIS_MNEMONIC_MOVDQA,  ZYDIS_MNEMONIC_MOVDQU,  ZYDIS_MNEMONIC_MOVNTPS, ZYDIS_MNEMONIC_MOVNTPD,
    ZYDIS_MNEMONIC_MOVNTDQ, ZYDIS_MNEMONIC_MOVNTQ,  ZYDIS_MNEMONIC_MOVNTI,  ZYDIS_MNEMONIC_MOVQ,
    ZYDIS_MNEMONIC_FXSAVE,  ZYDIS_MNEMONIC_FXRSTOR, ZYDIS_MNEMONIC_FNSTCW,  ZYDIS_MNEMONIC_FNSTSW,
};

}  // namespace

bool kvm_emulates(std::span<const std::uint8_t> instruction, unsigned code_bits) {
  const auto decoded = decode(instruction, code_bits);
  if (!decoded) return true;
  const ZydisDecodedInstruction& info = decoded->info;
  if (info.encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY) return false;
  if (info.mnemonic == ZYDIS_MNEMONIC_CMPXCHG16B) return false;
  switch (info.meta.isa_ext) {
    case ZYDIS_ISA_EXT_BASE:
    case ZYDIS_ISA_EXT_LONGMODE:
    case ZYDIS_ISA_EXT_MOVBE:
      return info.mnemonic != ZYDIS_MNEMONIC_POPCNT;
    default:
      return std::ranges::find(kMoves, info.mnemonic) != std::end(kMoves);
  }
}

bool needs_page_tables(std::span<const std::uint8_t> instruction, unsigned code_bits, Gpa failed) {
  const auto decoded = decode(instruction, code_bits);
  if (!decoded) return false;
  const auto operands = std::span(decoded->operands).first(decoded->info.operand_count);
  const auto in_memory = [](const ZydisDecodedOperand& o) {
    return o.type == ZYDIS_OPERAND_TYPE_MEMORY && o.size != 0;
  };
  if (std::ranges::count_if(operands, in_memory) > 1) return true;
  constexpr ZydisInstructionAttributes kRepeated =
      ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE | ZYDIS_ATTRIB_HAS_REPNE;
  const bool string = decoded->info.meta.category == ZYDIS_CATEGORY_STRINGOP;
  if (string && (decoded->info.attributes & kRepeated) != 0) return true;
  const auto operand = std::ranges::find_if(operands, in_memory);
  return operand != operands.end() && failed.value % kPageSize + operand->size / 8 > kPageSize;
}

}  // namespace sevisor::emulator
