// Limit and type checks of memory operands where segments are not flat (APM vol. 2, 4.7 and 4.12).
#include <algorithm>

#include "emulator/cpu/code/decoder.hpp"
#include "emulator/cpu/core.hpp"

namespace sevisor::emulator {

namespace {

constexpr std::uint16_t kCode = 0x8;
constexpr std::uint16_t kExpandDown = 0x4;  // of data segments
constexpr std::uint16_t kAllowed = 0x2;     // writable data, readable code

constexpr std::uint8_t kWriteAccess = 1;
constexpr unsigned kBigStack = 4;  // Core::mode_bits()

bool allowed(const Segment& s, bool write, bool protected_mode) {
  if (!protected_mode) return true;
  if ((s.attributes & kSegPresent) == 0) return false;  // a null selector was loaded
  const bool is_code = (s.attributes & kCode) != 0;
  if (write) return !is_code && (s.attributes & kAllowed) != 0;
  return !is_code || (s.attributes & kAllowed) != 0;
}

bool within(const Segment& s, std::uint64_t offset, std::uint64_t size) {
  const std::uint64_t last = offset + size - 1;
  const bool expand_down = (s.attributes & (kCode | kExpandDown)) == kExpandDown;
  if (!expand_down) return last <= s.limit;
  const std::uint64_t top = (s.attributes & kSegDefault) != 0 ? 0xffffffff : 0xffff;
  return offset > s.limit && last <= top;
}

const Op* segment_fault(Core& core, const Op* op) {
  return core.fault(op->segment_register == kSs ? kVectorSs : kVectorGp, 0);
}

bool usable(const Core& core, const Op* op) {
  return allowed(core.seg[op->segment_register], op->aux == kWriteAccess, (core.cr0 & kCr0Pe) != 0);
}

// src: size in bytes; aux: kWriteAccess.
const Op* op_check_segment(Core& core, const Op* op) {
  const std::uint64_t offset = core.address(op) - core.gpr[op->segment];
  if (!usable(core, op) || !within(core.seg[op->segment_register], offset, op->src)) [[unlikely]] {
    return segment_fault(core, op);
  }
  return op + 1;
}

// What the instruction pushes, below the stack pointer. src, aux: as above; address_mask: of the stack pointer.
const Op* op_check_push(Core& core, const Op* op) {
  const std::uint64_t offset = (core.gpr[kRegRsp] - op->src) & op->address_mask;
  if (!usable(core, op) || !within(core.seg[kSs], offset, op->src)) [[unlikely]] {
    return segment_fault(core, op);
  }
  return op + 1;
}

// Elements of `size` bytes, the first at `offset`, that lie within the segment.
std::uint64_t elements_within(const Segment& s, std::uint64_t offset, std::uint64_t size, bool down) {
  if (!within(s, offset, size)) return 0;
  const bool expand_down = (s.attributes & (kCode | kExpandDown)) == kExpandDown;
  const std::uint64_t top = (s.attributes & kSegDefault) != 0 ? 0xffffffff : 0xffff;
  const std::uint64_t first = expand_down ? s.limit + std::uint64_t{1} : 0;
  const std::uint64_t last = expand_down ? top : s.limit;
  return down ? (offset - first) / size + 1 : (last - offset + 1) / size;
}

// The elements of a string: as many as fit are let through, and the one behind them faults when it is next.
const Op* op_check_string(Core& core, const Op* op) {
  const std::uint64_t count = op->rep != 0 ? core.gpr[1] & op->address_mask : 1;
  if (count == 0) return op + 1;
  const std::uint64_t offset = core.gpr[op->base] & op->address_mask;
  const bool down = (core.system_flags & kFlagDf) != 0;
  const std::uint64_t room =
      usable(core, op) ? elements_within(core.seg[op->segment_register], offset, op->src, down) : 0;
  if (room == 0) [[unlikely]]
    return segment_fault(core, op);
  core.string_room = std::min(core.string_room, room);
  return op + 1;
}

// INS and OUTS get as far as their operand only where the hypervisor emulates them.
const Op* op_check_port_string(Core& core, const Op* op) {
  return core.bus != nullptr ? op_check_string(core, op) : op + 1;
}

// XLAT: its index is AL.
const Op* op_check_table(Core& core, const Op* op) {
  const std::uint64_t offset = (core.gpr[op->base] + (core.gpr[0] & 0xff)) & op->address_mask;
  if (!usable(core, op) || !within(core.seg[op->segment_register], offset, 1)) [[unlikely]] {
    return segment_fault(core, op);
  }
  return op + 1;
}

// The check of an operand that the instruction does not name.
Handler hidden_check(const Insn& insn, const ZydisDecodedOperand& operand) {
  if (insn.info.meta.category == ZYDIS_CATEGORY_IOSTRINGOP) return op_check_port_string;
  if (insn.info.meta.category == ZYDIS_CATEGORY_STRINGOP) return op_check_string;
  if (insn.info.mnemonic == ZYDIS_MNEMONIC_XLAT) return op_check_table;
  const bool on_stack = ZydisRegisterGetId(operand.mem.base) == ZydisRegisterGetId(ZYDIS_REGISTER_RSP);
  const bool written = (operand.actions & ZYDIS_OPERAND_ACTION_MASK_WRITE) != 0;
  return on_stack && written ? op_check_push : op_check_segment;
}

}  // namespace

std::size_t add_segment_checks(const Insn& insn, const Op& op, std::span<Op, kMaxSegmentChecks> checks) {
  constexpr std::uint16_t kMostBytes = 64;
  std::size_t count = 0;
  for (unsigned n = 0; n < insn.info.operand_count && count < checks.size(); ++n) {
    const ZydisDecodedOperand& operand = insn.op(n);
    if (operand.type != ZYDIS_OPERAND_TYPE_MEMORY || operand.mem.type != ZYDIS_MEMOP_TYPE_MEM || operand.size == 0) {
      continue;
    }
    const bool hidden = operand.visibility == ZYDIS_OPERAND_VISIBILITY_HIDDEN;
    const Handler check = hidden ? hidden_check(insn, operand) : op_check_segment;
    Op& added = checks[count++];
    added = op;
    set_memory(insn, operand, added);
    // The stack pointer is as wide as SS says, whatever the address size.
    if (hidden && added.segment_register == kSs)
      added.address_mask = (insn.mode & kBigStack) != 0 ? 0xffffffff : 0xffff;
    added.fn = check;
    added.rep = insn.has_prefix(ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE | ZYDIS_ATTRIB_HAS_REPNE) ? 1 : 0;
    added.src = static_cast<std::uint8_t>(std::min<std::uint16_t>(operand.size / 8, kMostBytes));
    added.aux = (operand.actions & ZYDIS_OPERAND_ACTION_MASK_WRITE) != 0 ? kWriteAccess : std::uint8_t{0};
  }
  return count;
}

}  // namespace sevisor::emulator
