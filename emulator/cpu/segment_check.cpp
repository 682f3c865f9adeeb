// Limit and type checks of memory operands where segments are not flat (APM vol. 2, 4.7 and 4.12).
#include "emulator/cpu/core.hpp"
#include "emulator/cpu/decoder.hpp"

namespace sevisor::emulator {

namespace {

constexpr std::uint16_t kCode = 0x8;
constexpr std::uint16_t kExpandDown = 0x4;  // of data segments
constexpr std::uint16_t kAllowed = 0x2;     // writable data, readable code

constexpr std::uint8_t kWriteAccess = 1;

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

// src: size in bytes; aux: kWriteAccess.
const Op* op_check_segment(Core& core, const Op* op) {
  const Segment& s = core.seg[op->segment_register];
  const std::uint64_t offset = core.address(op) - core.gpr[op->segment];
  const bool write = op->aux == kWriteAccess;
  if (!allowed(s, write, (core.cr0 & kCr0Pe) != 0) || !within(s, offset, op->src)) [[unlikely]] {
    return core.fault(op->segment_register == kSs ? kVectorSs : kVectorGp, 0);
  }
  return op + 1;
}

}  // namespace

bool add_segment_check(const Insn& insn, const Op& op, Op& check) {
  for (unsigned n = 0; n < insn.info.operand_count; ++n) {
    const ZydisDecodedOperand& operand = insn.op(n);
    if (operand.type != ZYDIS_OPERAND_TYPE_MEMORY || operand.visibility == ZYDIS_OPERAND_VISIBILITY_HIDDEN ||
        operand.mem.type != ZYDIS_MEMOP_TYPE_MEM || operand.size == 0) {
      continue;
    }
    check = op;
    set_memory(insn, operand, check);
    check.fn = op_check_segment;
    check.src = static_cast<std::uint8_t>(operand.size > 64 * 8 ? 64 : operand.size / 8);
    check.aux = (operand.actions & ZYDIS_OPERAND_ACTION_MASK_WRITE) != 0 ? kWriteAccess : std::uint8_t{0};
    return true;
  }
  return false;
}

}  // namespace sevisor::emulator
