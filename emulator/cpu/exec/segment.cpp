// Segment registers, GDTR and IDTR, the bases of FS and GS (APM vol. 2, 4.5 and 4.6; vol. 3).
#include <utility>

#include "emulator/cpu/system.hpp"

namespace sevisor::emulator {

namespace {

// After a segment register changed: outside 64-bit mode the block may have been decoded for other segments.
const Op* after_segment_load(Core& core, const Op* op, std::uint8_t s) {
  if (s == kSs) {
    if (core.code64) {
      core.debug_shadow_on = true;
      return shadow_next(core, op);
    }
    core.interrupt_shadow_on = core.debug_shadow_on = true;
  }
  if (core.code64) return op + 1;
  core.update_mode();
  return core.leave_at(core.rip_after(op));
}

// dst: segment register; src: general register.
const Op* op_load_segment_reg(Core& core, const Op* op) {
  const auto s = static_cast<SegmentRegister>(op->dst);
  if (!load_segment(core, s, core.reg<std::uint16_t>(op->src))) return core.fault();
  return after_segment_load(core, op, s);
}

const Op* op_load_segment_mem(Core& core, const Op* op) {
  const auto s = static_cast<SegmentRegister>(op->dst);
  std::uint16_t selector = 0;
  if (!core.read(core.address(op), selector) || !load_segment(core, s, selector)) return core.fault();
  return after_segment_load(core, op, s);
}

// dst: segment register; bits: bytes popped.
const Op* op_pop_segment(Core& core, const Op* op) {
  const auto s = static_cast<SegmentRegister>(op->dst);
  Stack stack = Stack::present(core);
  std::uint64_t value = 0;
  if (!stack.pop(value, op->bits) || !load_segment(core, s, static_cast<std::uint16_t>(value))) return core.fault();
  stack.keep();
  return after_segment_load(core, op, s);
}

// src: segment register.
const Op* op_store_segment(Core& core, const Op* op) { return store_word(core, op, core.seg[op->src].selector); }

// LDS, LES, LFS, LGS, LSS. dst: general register; src: segment register; bits: bytes of the offset.
const Op* op_load_far_pointer(Core& core, const Op* op) {
  std::array<std::byte, 10> pointer{};
  if (!core.read_slow(core.address(op), pointer.data(), op->bits + 2U)) return core.fault();
  const auto s = static_cast<SegmentRegister>(op->src);
  if (!load_segment(core, s, load<std::uint16_t>(pointer.data() + op->bits))) return core.fault();
  switch (op->bits) {
    case 2:
      core.set_reg(op->dst, load<std::uint16_t>(pointer.data()));
      break;
    case 4:
      core.set_reg(op->dst, load<std::uint32_t>(pointer.data()));
      break;
    default:
      core.set_reg(op->dst, load<std::uint64_t>(pointer.data()));
      break;
  }
  if (core.code64) return op + 1;
  core.update_mode();
  return core.leave_at(core.rip_after(op));
}

// bits: bytes of the base that count: 3, 4 or 8.
template <SystemSegment Core::*kTable>
const Op* op_load_table(Core& core, const Op* op) {
  if (core.cpl != 0) return core.fault(kVectorGp, 0);
  std::array<std::byte, 10> image{};
  if (!core.read_slow(core.address(op), image.data(), op->bits == 8 ? 10 : 6)) return core.fault();
  std::uint64_t base = load<std::uint64_t>(image.data() + 2);
  if (op->bits != 8) base &= op->bits == 3 ? 0xff'ffff : 0xffff'ffff;
  if (!canonical(base)) return core.fault(kVectorGp, 0);
  (core.*kTable).limit = load<std::uint16_t>(image.data());
  (core.*kTable).base = base;
  return op + 1;
}

template <SystemSegment Core::*kTable>
const Op* op_store_table(Core& core, const Op* op) {
  if (umip_denies(core)) return core.fault(kVectorGp, 0);
  std::array<std::byte, 10> image{};
  store(image.data(), static_cast<std::uint16_t>((core.*kTable).limit));
  store(image.data() + 2, (core.*kTable).base);
  if (!core.write_slow(core.address(op), image.data(), core.code64 ? 10 : 6)) return core.fault();
  return op + 1;
}

// --- bases of FS and GS ----------------------------------------------------------------------------------------------

const Op* op_swapgs(Core& core, const Op* op) {
  if (core.cpl != 0) return core.fault(kVectorGp, 0);
  std::swap(core.segment_base(kGs), core.msr.kernel_gs_base);
  return op + 1;
}

// dst: general register; src: segment register; bits: 4 or 8.
const Op* op_read_base(Core& core, const Op* op) {
  if ((core.cr4 & kCr4Fsgsbase) == 0) return core.fault(kVectorUd);
  const std::uint64_t base = core.segment_base(op->src);
  core.set_reg(op->dst, op->bits == 8 ? base : base & 0xffff'ffff);
  return op + 1;
}

const Op* op_write_base(Core& core, const Op* op) {
  if ((core.cr4 & kCr4Fsgsbase) == 0) return core.fault(kVectorUd);
  const auto value = core.reg<std::uint64_t>(op->dst);
  const std::uint64_t base = op->bits == 8 ? value : value & 0xffff'ffff;
  if (!canonical(base)) return core.fault(kVectorGp, 0);
  core.segment_base(op->src) = base;
  return op + 1;
}

// --- selectors -------------------------------------------------------------------------------------------------------

template <SegmentRegister kSegment>
bool select_far_pointer(Insn& insn, Op& op) {
  op.dst = register_offset(insn.op(0).reg.value);
  op.src = kSegment;
  op.bits = static_cast<std::uint8_t>(insn.op(0).size / 8);
  set_memory(insn, insn.op(1), op);
  op.fn = op_load_far_pointer;
  insn.last = kSegment == kSs || !insn.code64();
  return true;
}

template <Handler kHandler>
bool select_load_table(Insn& insn, Op& op) {
  set_memory(insn, insn.op(0), op);
  op.bits = insn.code64() ? 8 : insn.operand_bits() == 16 ? 3 : 4;
  op.fn = kHandler;
  return true;
}

template <Handler kHandler>
bool select_store_table(Insn& insn, Op& op) {
  set_memory(insn, insn.op(0), op);
  op.fn = kHandler;
  return true;
}

template <Handler kHandler, SegmentRegister kSegment>
bool select_base(Insn& insn, Op& op) {
  op.dst = register_offset(insn.op(0).reg.value);
  op.src = kSegment;
  op.bits = static_cast<std::uint8_t>(insn.op(0).size / 8);
  op.fn = kHandler;
  return true;
}

bool select_swapgs(Insn& /*insn*/, Op& op) {
  op.fn = op_swapgs;
  return true;
}

}  // namespace

bool select_segment_move(Insn& insn, Op& op) {
  const bool to_segment = insn.is_reg(0) && ZydisRegisterGetClass(insn.op(0).reg.value) == ZYDIS_REGCLASS_SEGMENT;
  if (!to_segment) {
    place_stored_word(insn, op);
    op.src = segment_number(insn.op(1).reg.value);
    op.fn = op_store_segment;
    return true;
  }
  op.dst = segment_number(insn.op(0).reg.value);
  if (insn.is_mem(1)) {
    set_memory(insn, insn.op(1), op);
    op.fn = op_load_segment_mem;
  } else {
    op.src = register_offset(insn.op(1).reg.value);
    op.fn = op_load_segment_reg;
  }
  insn.last = !insn.code64();
  return true;
}

bool select_segment_pop(Insn& insn, Op& op) {
  if (!insn.is_reg(0) || ZydisRegisterGetClass(insn.op(0).reg.value) != ZYDIS_REGCLASS_SEGMENT) return false;
  op.dst = segment_number(insn.op(0).reg.value);
  set_size(insn, op);
  op.fn = op_pop_segment;
  insn.last = !insn.code64();
  return true;
}

void add_segments(SelectorTable& table) {
  table[ZYDIS_MNEMONIC_LDS] = select_far_pointer<kDs>;
  table[ZYDIS_MNEMONIC_LES] = select_far_pointer<kEs>;
  table[ZYDIS_MNEMONIC_LFS] = select_far_pointer<kFs>;
  table[ZYDIS_MNEMONIC_LGS] = select_far_pointer<kGs>;
  table[ZYDIS_MNEMONIC_LSS] = select_far_pointer<kSs>;
  table[ZYDIS_MNEMONIC_LGDT] = select_load_table<op_load_table<&Core::gdtr>>;
  table[ZYDIS_MNEMONIC_LIDT] = select_load_table<op_load_table<&Core::idtr>>;
  table[ZYDIS_MNEMONIC_SGDT] = select_store_table<op_store_table<&Core::gdtr>>;
  table[ZYDIS_MNEMONIC_SIDT] = select_store_table<op_store_table<&Core::idtr>>;
  table[ZYDIS_MNEMONIC_SWAPGS] = select_swapgs;
  table[ZYDIS_MNEMONIC_RDFSBASE] = select_base<op_read_base, kFs>;
  table[ZYDIS_MNEMONIC_RDGSBASE] = select_base<op_read_base, kGs>;
  table[ZYDIS_MNEMONIC_WRFSBASE] = select_base<op_write_base, kFs>;
  table[ZYDIS_MNEMONIC_WRGSBASE] = select_base<op_write_base, kGs>;
}

}  // namespace sevisor::emulator
