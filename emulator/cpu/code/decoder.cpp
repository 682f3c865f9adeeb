#include "emulator/cpu/code/decoder.hpp"

#include <algorithm>
#include <bit>
#include <fmt/format.h>

#include "emulator/cpu/core.hpp"
#include "emulator/cpu/exec/fused.hpp"

namespace sevisor::emulator {

namespace {

// A link key that no jump_key ever has: generations start at 1 and never reach 2^56.
constexpr std::uint64_t kNoLink = ~std::uint64_t{0};
constexpr std::size_t kMaxInstructionBytes = 15;

const SelectorTable& integer_selectors() {
  static const SelectorTable table = [] {
    SelectorTable t{};
    add_integer(t);
    add_shifts(t);
    add_bits(t);
    add_multiply(t);
    add_strings(t);
    return t;
  }();
  return table;
}
const SelectorTable& system_selectors() {
  static const SelectorTable table = [] {
    SelectorTable t{};
    add_system(t);
    return t;
  }();
  return table;
}

// Extensions of which the processors we model have nothing: their instructions raise #UD. What is left over and not
// implemented stops the guest by name.
bool is_absent(ZydisISAExt extension) {
  switch (extension) {
    case ZYDIS_ISA_EXT_AMX_BF16:
    case ZYDIS_ISA_EXT_AMX_INT8:
    case ZYDIS_ISA_EXT_AMX_TILE:
    case ZYDIS_ISA_EXT_AVX512EVEX:
    case ZYDIS_ISA_EXT_AVX512VEX:
    case ZYDIS_ISA_EXT_AVX_VNNI:
    case ZYDIS_ISA_EXT_ENQCMD:
    case ZYDIS_ISA_EXT_FMA4:
    case ZYDIS_ISA_EXT_GFNI:
    case ZYDIS_ISA_EXT_HRESET:
    case ZYDIS_ISA_EXT_KEYLOCKER:
    case ZYDIS_ISA_EXT_KEYLOCKER_WIDE:
    case ZYDIS_ISA_EXT_KNC:  // among them VEX forms of LZCNT, TZCNT and POPCNT
    case ZYDIS_ISA_EXT_KNCE:
    case ZYDIS_ISA_EXT_KNCV:
    case ZYDIS_ISA_EXT_MOVDIR:
    case ZYDIS_ISA_EXT_MPX:
    case ZYDIS_ISA_EXT_PADLOCK:
    case ZYDIS_ISA_EXT_PCONFIG:
    case ZYDIS_ISA_EXT_PKU:
    case ZYDIS_ISA_EXT_PT:
    case ZYDIS_ISA_EXT_RTM:
    case ZYDIS_ISA_EXT_SERIALIZE:
    case ZYDIS_ISA_EXT_SGX:
    case ZYDIS_ISA_EXT_SGX_ENCLV:
    case ZYDIS_ISA_EXT_SMX:
    case ZYDIS_ISA_EXT_TBM:
    case ZYDIS_ISA_EXT_TDX:
    case ZYDIS_ISA_EXT_TSX_LDTRK:
    case ZYDIS_ISA_EXT_UINTR:
    case ZYDIS_ISA_EXT_VMFUNC:
    case ZYDIS_ISA_EXT_VTX:
    case ZYDIS_ISA_EXT_WAITPKG:
    case ZYDIS_ISA_EXT_XOP:
      return true;
    default:
      return false;
  }
}

// MOV, PUSH, POP, JMP, CALL and RET are names of both: the integer selector declines segment, control and debug
// registers and far branches.
bool select_operation(Insn& insn, Op& op) {
  if (is_absent(insn.info.meta.isa_ext)) {
    op.fn = op_undefined;
    insn.ends_block = true;
    return true;
  }
  if (is_vector(insn.info)) return select_vector(insn, op);
  for (const SelectorTable* table : {&integer_selectors(), &system_selectors()}) {
    const Selector select = (*table)[insn.info.mnemonic];
    if (select != nullptr && select(insn, op)) return true;
  }
  return false;
}

ZydisDecoder make_decoder(ZydisMachineMode machine, ZydisStackWidth stack) {
  ZydisDecoder decoder;
  ZydisDecoderInit(&decoder, machine, stack);
  ZydisDecoderEnableMode(&decoder, ZYDIS_DECODER_MODE_MPX, ZYAN_FALSE);
  ZydisDecoderEnableMode(&decoder, ZYDIS_DECODER_MODE_CLDEMOTE, ZYAN_FALSE);
  ZydisDecoderEnableMode(&decoder, ZYDIS_DECODER_MODE_AMD_BRANCHES, ZYAN_TRUE);
  return decoder;
}

// By mode bits 2:0: code size and SS.B.
const ZydisDecoder& decoder_for(unsigned mode) {
  static const std::array<ZydisDecoder, 5> decoders = {
      make_decoder(ZYDIS_MACHINE_MODE_LEGACY_16, ZYDIS_STACK_WIDTH_16),
      make_decoder(ZYDIS_MACHINE_MODE_LEGACY_16, ZYDIS_STACK_WIDTH_32),
      make_decoder(ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_16),
      make_decoder(ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_32),
      make_decoder(ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64),
  };
  if ((mode & 3) == 2) return decoders[4];
  return decoders[(mode & 1) * 2 + ((mode & 4) != 0 ? 1 : 0)];
}

Op blank(std::size_t offset, std::size_t number, std::size_t slot) {
  Op op{};
  op.fn = op_unimplemented;
  op.link_key = kNoLink;
  op.address_mask = ~std::uint64_t{0};
  op.base = op.index = op.segment = kRegZero;
  op.rip_offset = static_cast<std::uint16_t>(offset);
  op.number = static_cast<std::uint8_t>(number);
  op.slot = static_cast<std::uint8_t>(slot);
  return op;
}

// The bytes go into the operation itself, for the error message.
void keep_bytes(std::span<const std::byte> bytes, Op& op) {
  std::array<std::byte, 16> copy{};
  std::copy(bytes.begin(), bytes.end(), copy.begin());
  op.imm = load<std::uint64_t>(copy.data());
  op.disp = load<std::int64_t>(copy.data() + 8);
}

}  // namespace

std::uint8_t register_offset(ZydisRegister reg) {
  if (reg >= ZYDIS_REGISTER_AH && reg <= ZYDIS_REGISTER_BH) {
    return static_cast<std::uint8_t>((reg - ZYDIS_REGISTER_AH) * 8 + 1);
  }
  return static_cast<std::uint8_t>(
      ZydisRegisterGetId(ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, reg)) * 8);
}

std::uint8_t segment_number(ZydisRegister reg) {
  return static_cast<std::uint8_t>(ZydisRegisterGetId(reg));  // Zydis counts ES CS SS DS FS GS too
}

void set_memory(const Insn& insn, const ZydisDecodedOperand& operand, Op& op) {
  const ZydisDecodedOperandMem& mem = operand.mem;
  const auto slot_of = [](ZydisRegister reg) {
    return reg == ZYDIS_REGISTER_NONE ? kRegZero : static_cast<std::uint8_t>(register_offset(reg) / 8);
  };
  op.disp = mem.disp.has_displacement ? mem.disp.value : 0;
  if (mem.base == ZYDIS_REGISTER_RIP || mem.base == ZYDIS_REGISTER_EIP) {
    op.base = kRegBlock;
    op.disp += op.rip_offset + op.length;
  } else {
    // Zydis 4.0 takes R13D for the absent base of a SIB byte under the prefixes 67 and REX.B, and forgets the
    // displacement.
    constexpr unsigned kSibFollows = 4;
    constexpr unsigned kNoBase = 5;
    const auto& raw = insn.info.raw;
    const bool absent =
        mem.base == ZYDIS_REGISTER_R13D && raw.modrm.mod == 0 && raw.modrm.rm == kSibFollows && raw.sib.base == kNoBase;
    op.base = absent ? kRegZero : slot_of(mem.base);
    if (absent) op.disp = raw.disp.value;
  }
  op.index = slot_of(mem.index);
  op.scale = static_cast<std::uint8_t>(mem.scale <= 1 ? 0 : std::countr_zero(static_cast<unsigned>(mem.scale)));
  op.address_mask = insn.info.address_width == 64   ? ~std::uint64_t{0}
                    : insn.info.address_width == 32 ? 0xffffffff
                                                    : 0xffff;
  op.segment_register = segment_number(mem.segment);
  const bool has_base = !insn.code64() || op.segment_register >= kFs;
  op.segment = has_base ? static_cast<std::uint8_t>(kRegSegmentBase + op.segment_register) : kRegZero;
}

std::unique_ptr<Block> decode_block(std::span<const std::byte> bytes, unsigned mode, unsigned max_instructions,
                                    HostStubs& stubs) {
  const ZydisDecoder& decoder = decoder_for(mode);
  auto block = std::make_unique<Block>();
  auto& ops = block->ops;
  ops.push_back(blank(0, 0, 0));
  ops.front().fn = op_enter;
  std::size_t at = 0;
  std::size_t count = 0;
  bool open = true;
  bool ends = false;
  Insn insn{};
  insn.mode = mode;
  insn.stubs = &stubs;
  while (open && count < max_instructions) {
    if (at == bytes.size()) break;
    const ZyanStatus status =
        ZydisDecoderDecodeFull(&decoder, bytes.data() + at, bytes.size() - at, &insn.info, insn.operands.data());
    if (status == ZYDIS_STATUS_NO_MORE_DATA) {
      if (count == 0) return nullptr;
      break;
    }
    Op op = blank(at, count, ops.size());
    if (!ZYAN_SUCCESS(status)) {
      op.fn = status == ZYDIS_STATUS_INSTRUCTION_TOO_LONG ? op_fetch_limit : op_undefined;
      ops.push_back(op);
      at = std::min(at + kMaxInstructionBytes, bytes.size());  // all that the decision may rest on
      ++count;
      ends = true;
      break;
    }
    op.length = insn.info.length;
    insn.bytes = bytes.subspan(at, insn.info.length);
    insn.ends_block = insn.last = false;
    if (!select_operation(insn, op)) {
      op = blank(at, count, ops.size());
      op.length = insn.info.length;
      op.fn = op_unimplemented;
      keep_bytes(insn.bytes, op);
      insn.ends_block = true;
    }
    Op check;
    if (insn.info.encoding == ZYDIS_INSTRUCTION_ENCODING_VEX && !insn.code64()) {
      check = op;
      check.fn = op_needs_protected_mode;
      ops.push_back(check);
      op.slot = static_cast<std::uint8_t>(ops.size());
    }
    if ((mode & 8) != 0 && op.fn != op_unimplemented) {
      std::array<Op, kMaxSegmentChecks> checks;
      const std::size_t made = add_segment_checks(insn, op, checks);
      for (std::size_t i = 0; i < made; ++i) {
        checks[i].slot = static_cast<std::uint8_t>(ops.size());
        ops.push_back(checks[i]);
      }
      op.slot = static_cast<std::uint8_t>(ops.size());
    }
    if (insn.last) fuse_compare_branch(insn, ops.back());
    ops.push_back(op);
    at += insn.info.length;
    ++count;
    open = !insn.ends_block && !insn.last;
    ends = insn.ends_block;
  }
  if (!ends) {
    Op last = blank(at, count, ops.size());
    last.fn = op_continue;
    ops.push_back(last);
  }
  ops.front().imm = count;
  block->size = static_cast<std::uint16_t>(at);
  block->mode = mode;
  ops.shrink_to_fit();
  return block;
}

const Op* op_enter(Core& core, const Op* op) {
  if (core.budget <= 0) [[unlikely]]
    return core.leave(Leave::kRestart);
  core.budget -= static_cast<std::int64_t>(op->imm);
  core.gpr[kRegBlock] = core.rip;
  return next(core, op);
}

const Op* op_continue(Core& core, const Op* op) { return core.jump_linked(op, core.rip_after(op)); }

const Op* op_poisoned(Core& core, const Op* op) {
  if (op->slot != 0) core.rip = core.rip_of(op);
  return core.leave(Leave::kRestart);
}

const Op* op_unimplemented(Core& core, const Op* op) {
  std::string text;
  std::array<std::byte, 16> bytes;
  store(bytes.data(), op->imm);
  store(bytes.data() + 8, op->disp);
  for (unsigned i = 0; i < op->length; ++i) text += fmt::format("{:02x} ", static_cast<unsigned>(bytes[i]));
  core.rip = core.rip_of(op);
  core.exit.unimplemented = fmt::format("instruction not implemented: {}at RIP {:#x}", text, core.rip);
  return core.leave(Leave::kExitFault);
}

// Real mode and 16-bit protected mode share their blocks.
const Op* op_needs_protected_mode(Core& core, const Op* op) {
  return (core.cr0 & kCr0Pe) != 0 ? next(core, op) : core.fault(kVectorUd);
}

const Op* op_undefined(Core& core, const Op* /*op*/) { return core.fault(kVectorUd); }
const Op* op_fetch_limit(Core& core, const Op* /*op*/) { return core.fault(kVectorGp, 0); }

}  // namespace sevisor::emulator
