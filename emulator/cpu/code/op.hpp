// A decoded instruction, ready to run, and the block it stands in.
#pragma once

#include <cstdint>

namespace sevisor::emulator {

struct Core;
struct Op;

// Runs one operation. Returns the next operation, or nullptr to leave the block (Core::leave says why). A handler
// changes nothing before its last access that can fault: a fault restarts the instruction.
using Handler = const Op* (*)(Core&, const Op*);

// One cache line. Registers are named by their byte offset in Core::gpr, so that AH..BH are just odd offsets.
struct alignas(64) Op {
  Handler fn;
  std::uint64_t imm;       // immediate, sign-extended; for direct branches the target, relative to the block's RIP
  mutable const Op* link;  // direct branches: the successor found last time ...
  mutable std::uint64_t link_key;  // ... valid while this equals Core::jump_key
  std::uint64_t address_mask;      // of the effective address: 0xffff, 0xffffffff, all ones
  std::int64_t disp;               // for RIP-relative operands relative to the block's RIP (base is kRegBlock)
  std::uint16_t rip_offset;        // of this instruction from the block's first byte
  std::uint8_t length;             // bytes, 1..15
  std::uint8_t dst;                // byte offset in gpr (or vector register number, segment number ...)
  std::uint8_t src;
  std::uint8_t base;              // index in gpr: kRegZero if none
  std::uint8_t index;             // index in gpr: kRegZero if none
  std::uint8_t scale;             // shift count 0..3
  std::uint8_t segment;           // index in gpr of the segment base: kRegZero in 64-bit mode but for FS and GS
  std::uint8_t number;            // instructions before this one in its block
  std::uint8_t slot;              // position in Block::ops: ops[-slot] is the block's first
  std::uint8_t aux;               // for the handler's own use
  std::uint8_t rep;               // 0, 0xf2 or 0xf3
  std::uint8_t segment_register;  // 0..5 ES CS SS DS FS GS of the memory operand, for checks and string operations
  std::uint8_t bits;              // operand size in bits / 8 where a handler is not a template of it
};
static_assert(sizeof(Op) == 64);

}  // namespace sevisor::emulator
