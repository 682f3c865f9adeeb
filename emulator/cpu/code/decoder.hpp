// From instruction bytes to operations. Zydis decodes; a table from mnemonic to selector picks the handler.
#pragma once

#include <Zydis/Zydis.h>
#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "emulator/cpu/code/code_cache.hpp"
#include "emulator/cpu/code/op.hpp"

namespace sevisor::emulator {

class HostStubs;  // emulator/cpu/exec/host_stubs.hpp

// One decoded instruction as the selectors see it.
struct Insn {
  ZydisDecodedInstruction info;
  std::array<ZydisDecodedOperand, ZYDIS_MAX_OPERAND_COUNT> operands;
  unsigned mode;  // Core::mode_bits()
  std::span<const std::byte> bytes;
  HostStubs* stubs;  // where vector instructions put the host code that runs them
  // Set by selectors. ends_block: the operation never goes on to op + 1. last: it may, but the block ends there with an
  // op_continue (conditional branches: the fall-through has a link of its own).
  bool ends_block = false;
  bool last = false;

  [[nodiscard]] bool code64() const { return (mode & 3) == 2; }
  [[nodiscard]] unsigned operand_bits() const { return info.operand_width; }
  [[nodiscard]] const ZydisDecodedOperand& op(unsigned n) const { return operands[n]; }
  [[nodiscard]] bool is_reg(unsigned n) const { return operands[n].type == ZYDIS_OPERAND_TYPE_REGISTER; }
  [[nodiscard]] bool is_mem(unsigned n) const { return operands[n].type == ZYDIS_OPERAND_TYPE_MEMORY; }
  [[nodiscard]] bool is_imm(unsigned n) const { return operands[n].type == ZYDIS_OPERAND_TYPE_IMMEDIATE; }
  [[nodiscard]] bool has_prefix(ZydisInstructionAttributes attribute) const {
    return (info.attributes & attribute) != 0;
  }
  [[nodiscard]] bool locked() const { return has_prefix(ZYDIS_ATTRIB_HAS_LOCK); }
};

// Fills op.fn and whatever operand fields its handler wants; length, rip_offset, number and slot are the decoder's.
// Returns false for a form it does not know: the operation becomes op_unimplemented, which stops the guest by name.
using Selector = bool (*)(Insn& insn, Op& op);
using SelectorTable = std::array<Selector, ZYDIS_MNEMONIC_MAX_VALUE + 1>;

// Each file of handlers enters its mnemonics. add_system() has a table of its own, which is asked about what the
// integer selectors decline (changing nothing): segment, control and debug registers in MOV and POP, far JMP, CALL and
// RET.
void add_integer(SelectorTable& table);   // exec/integer.cpp: moves, arithmetic, logic, stack, near branches, RDRAND
void add_shifts(SelectorTable& table);    // exec/shift.cpp: shifts, rotates, double shifts
void add_bits(SelectorTable& table);      // exec/bits.cpp: BT*, BSF, BSR, POPCNT, BMI1/2, ADX, CRC32
void add_multiply(SelectorTable& table);  // exec/multiply.cpp: MUL, IMUL, DIV, IDIV, MULX, BCD
void add_strings(SelectorTable& table);   // exec/string.cpp: MOVS, STOS, LODS, SCAS, CMPS with REP
void add_system(SelectorTable& table);    // exec/system.cpp and others: privileged, far transfers, INS, OUTS, MSR

// x87, MMX, SSE and state saving are recognised by instruction set, since Zydis names MOVSD and CMPSD of both kinds
// alike.
[[nodiscard]] bool is_vector(const ZydisDecodedInstruction& info);  // vector_select.cpp
[[nodiscard]] bool select_vector(Insn& insn, Op& op);

// Byte offset in Core::gpr of a general register; AH..BH are their odd offsets.
[[nodiscard]] std::uint8_t register_offset(ZydisRegister reg);
[[nodiscard]] std::uint8_t segment_number(ZydisRegister reg);
// Fills base, index, scale, disp, address_mask, segment, segment_register from a memory operand.
void set_memory(const Insn& insn, const ZydisDecodedOperand& operand, Op& op);

// Decodes from `bytes` (the rest of the page, or a page-crossing instruction alone) until a branch, kMaxInstructions,
// or the end. Empty `ops` never happens: an instruction that does not fit into `bytes` alone gives nullptr if it is the
// first (the caller joins the next page's bytes), and otherwise ends the block before it.
// `max_instructions` 1..kMaxInstructions. The block's page, offset and page_flags are left for the caller to fill.
[[nodiscard]] std::unique_ptr<Block> decode_block(std::span<const std::byte> bytes, unsigned mode,
                                                  unsigned max_instructions, HostStubs& stubs);

// segment_check.cpp: in modes whose segments are not flat, operations of their own in front of the instruction's check
// limit and type for each memory operand, those on the stack and of strings included. Returns how many it made.
inline constexpr std::size_t kMaxSegmentChecks = 2;
[[nodiscard]] std::size_t add_segment_checks(const Insn& insn, const Op& op, std::span<Op, kMaxSegmentChecks> checks);

// Handlers that the decoder itself places.
const Op* op_enter(Core& core, const Op* op);     // charges the block; imm: number of instructions
const Op* op_continue(Core& core, const Op* op);  // end of a block without a branch: goes on at the next instruction
const Op* op_poisoned(Core& core, const Op* op);  // the block was invalidated: look up again here
const Op* op_unimplemented(Core& core, const Op* op);
const Op* op_undefined(Core& core, const Op* op);             // #UD
const Op* op_needs_protected_mode(Core& core, const Op* op);  // in front of VEX instructions: #UD in real mode
const Op* op_fetch_limit(Core& core, const Op* op);           // instruction longer than 15 bytes: #GP(0)

}  // namespace sevisor::emulator
