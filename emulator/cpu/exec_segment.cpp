// Segment registers, descriptor-table registers and the instructions that inspect descriptors (APM vol. 2, 4.5 and 4.6;
// vol. 3).
#include <utility>

#include "emulator/cpu/system.hpp"

namespace sevisor::emulator {

namespace {

bool umip_denies(const Core& core) { return (core.cr4 & kCr4Umip) != 0 && core.cpl != 0; }

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

// A value that SLDT, STR, SMSW and MOV from a segment register store: 16 bits in memory, zero-extended in a register.
const Op* store_word(Core& core, const Op* op, std::uint64_t value) {
  switch (op->bits) {
    case 0:
      return core.write(core.address(op), static_cast<std::uint16_t>(value)) ? op + 1 : core.fault();
    case 2:
      core.set_reg(op->dst, static_cast<std::uint16_t>(value));
      break;
    case 4:
      core.set_reg(op->dst, static_cast<std::uint32_t>(value));
      break;
    default:
      core.set_reg(op->dst, value);
      break;
  }
  return op + 1;
}

// src: segment register.
const Op* op_store_segment(Core& core, const Op* op) { return store_word(core, op, core.seg[op->src].selector); }

const Op* op_sldt(Core& core, const Op* op) {
  if (!protected_mode(core)) return core.fault(kVectorUd);
  return umip_denies(core) ? core.fault(kVectorGp, 0) : store_word(core, op, core.ldtr.selector);
}
const Op* op_str(Core& core, const Op* op) {
  if (!protected_mode(core)) return core.fault(kVectorUd);
  return umip_denies(core) ? core.fault(kVectorGp, 0) : store_word(core, op, core.tr.selector);
}
const Op* op_smsw(Core& core, const Op* op) {
  return umip_denies(core) ? core.fault(kVectorGp, 0) : store_word(core, op, core.cr0);
}

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

// The 16-bit source of LLDT, LTR, LMSW, VERR, VERW, LAR, LSL: register `src`, or memory when `aux` is set.
bool read_word(Core& core, const Op* op, std::uint16_t& out) {
  if (op->aux != 0) return core.read(core.address(op), out);
  out = core.reg<std::uint16_t>(op->src);
  return true;
}

// Base of an LDT or TSS; in long mode the descriptor has 16 bytes.
bool system_base(Core& core, const Descriptor& d, std::uint16_t selector, std::uint64_t& base) {
  base = d.base();
  if (!core.long_mode) return true;
  std::uint64_t upper = 0;
  if (!read_upper(core, d, selector, upper)) return false;
  base |= upper << 32;
  return canonical(base) ? true : core.raise(kVectorGp, selector_error(selector));
}

SystemSegment system_segment(std::uint16_t selector, const Descriptor& d, std::uint64_t base) {
  SystemSegment s;
  s.selector = selector;
  s.attributes = d.attributes();
  s.limit = d.limit();
  s.base = base;
  return s;
}

const Op* op_lldt(Core& core, const Op* op) {
  if (!protected_mode(core)) return core.fault(kVectorUd);
  if (core.cpl != 0) return core.fault(kVectorGp, 0);
  std::uint16_t selector = 0;
  if (!read_word(core, op, selector)) return core.fault();
  if (null_selector(selector)) {
    core.ldtr = SystemSegment{};
    core.ldtr.selector = selector;
    return op + 1;
  }
  if ((selector & kSelectorLocal) != 0) return core.fault(kVectorGp, selector_error(selector));
  Descriptor d;
  if (!read_descriptor(core, selector, d)) return core.fault();
  if (!d.system() || d.type() != kTypeLdt) return core.fault(kVectorGp, selector_error(selector));
  if (!d.present()) return core.fault(kVectorNp, selector_error(selector));
  std::uint64_t base = 0;
  if (!system_base(core, d, selector, base)) return core.fault();
  core.ldtr = system_segment(selector, d, base);
  return op + 1;
}

const Op* op_ltr(Core& core, const Op* op) {
  constexpr std::uint64_t kBusyBit = std::uint64_t{2} << 40;
  if (!protected_mode(core)) return core.fault(kVectorUd);
  if (core.cpl != 0) return core.fault(kVectorGp, 0);
  std::uint16_t selector = 0;
  if (!read_word(core, op, selector)) return core.fault();
  if (null_selector(selector)) return core.fault(kVectorGp, 0);
  if ((selector & kSelectorLocal) != 0) return core.fault(kVectorGp, selector_error(selector));
  Descriptor d;
  if (!read_descriptor(core, selector, d)) return core.fault();
  const bool tss = d.type() == kTypeTss || (d.type() == kTypeTss16 && !core.long_mode);
  if (!d.system() || !tss) return core.fault(kVectorGp, selector_error(selector));
  if (!d.present()) return core.fault(kVectorNp, selector_error(selector));
  std::uint64_t base = 0;
  if (!system_base(core, d, selector, base)) return core.fault();
  d.raw |= kBusyBit;
  const auto type_byte = static_cast<std::uint8_t>(d.raw >> 40);
  if (!core.write_system(d.va + 5, &type_byte, 1)) return core.fault();
  core.tr = system_segment(selector, d, base);
  return op + 1;
}

// --- inspection
// -------------------------------------------------------------------------------------------------------

enum class Inspect : std::uint8_t { kRights, kLimit, kRead, kWrite };

// May the program see (read, write) the segment?
bool visible(const Core& core, const Descriptor& d, std::uint16_t selector, Inspect what) {
  const unsigned rpl = selector & kSelectorRpl;
  if (d.system()) {
    if (what == Inspect::kRead || what == Inspect::kWrite) return false;
    const unsigned type = d.type();
    const bool in_long = type == kTypeLdt || type == kTypeTss || type == kTypeTssBusy;
    bool known = in_long || (!core.long_mode && (type == kTypeTss16 || type == kTypeTss16Busy));
    if (what == Inspect::kRights) {
      known = known || type == kTypeCallGate || (!core.long_mode && (type == kTypeCallGate16 || type == kTypeTaskGate));
    }
    if (!known) return false;
  }
  if (what == Inspect::kWrite && !d.writable_data()) return false;
  if (what == Inspect::kRead && d.code() && (d.type() & kTypeWritable) == 0) return false;
  if (what == Inspect::kWrite || !d.conforming()) return d.dpl() >= core.cpl && d.dpl() >= rpl;
  return true;
}

// dst: register of LAR and LSL; bits: its bytes.
template <Inspect kWhat>
const Op* op_inspect(Core& core, const Op* op) {
  constexpr std::uint32_t kRightsMask = 0x00f0'ff00;
  if (!protected_mode(core)) return core.fault(kVectorUd);
  std::uint16_t selector = 0;
  if (!read_word(core, op, selector)) return core.fault();
  Descriptor d;
  bool found = !null_selector(selector) && within_table(core, selector);
  if (found && !read_descriptor(core, selector, d)) return core.fault();
  found = found && visible(core, d, selector, kWhat);
  core.flags.set_zf(found);
  if constexpr (kWhat == Inspect::kRights || kWhat == Inspect::kLimit) {
    if (!found) return op + 1;
    const std::uint32_t value =
        kWhat == Inspect::kRights ? static_cast<std::uint32_t>(d.raw >> 32) & kRightsMask : d.limit();
    if (op->bits == 2) {
      core.set_reg(op->dst, static_cast<std::uint16_t>(value));
    } else {
      core.set_reg(op->dst, value);
    }
  }
  return op + 1;
}

// dst (or memory, when aux is set): selector whose RPL is raised; src: register.
const Op* op_arpl(Core& core, const Op* op) {
  if (!protected_mode(core)) return core.fault(kVectorUd);
  std::uint16_t selector = 0;
  if (op->aux != 0) {
    if (!core.read_to_modify(core.address(op), selector)) return core.fault();
  } else {
    selector = core.reg<std::uint16_t>(op->dst);
  }
  const unsigned wanted = core.reg<std::uint16_t>(op->src) & kSelectorRpl;
  const bool raised = (selector & kSelectorRpl) < wanted;
  if (raised) {
    selector = static_cast<std::uint16_t>((selector & ~kSelectorRpl) | wanted);
    if (op->aux == 0) {
      core.set_reg(op->dst, selector);
    } else if (!core.write(core.address(op), selector)) {
      return core.fault();
    }
  }
  core.flags.set_zf(raised);
  return op + 1;
}

// --- bases of FS and GS
// -----------------------------------------------------------------------------------------------

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

// --- selectors
// --------------------------------------------------------------------------------------------------------

// A destination of store_word: register with its size, or memory as size 0.
void place_word(const Insn& insn, Op& op) {
  if (insn.is_mem(0)) {
    set_memory(insn, insn.op(0), op);
    op.bits = 0;
  } else {
    op.dst = register_offset(insn.op(0).reg.value);
    op.bits = static_cast<std::uint8_t>(insn.op(0).size / 8);
  }
}

// The source of read_word.
void place_word_source(const Insn& insn, unsigned n, Op& op) {
  if (insn.is_mem(n)) {
    set_memory(insn, insn.op(n), op);
    op.aux = 1;
  } else {
    op.src = register_offset(insn.op(n).reg.value);
  }
}

template <Handler kHandler>
bool select_store_word(Insn& insn, Op& op) {
  place_word(insn, op);
  op.fn = kHandler;
  return true;
}

template <Handler kHandler>
bool select_word_source(Insn& insn, Op& op) {
  place_word_source(insn, 0, op);
  op.fn = kHandler;
  return true;
}

template <Inspect kWhat>
bool select_inspect(Insn& insn, Op& op) {
  constexpr bool kHasDestination = kWhat == Inspect::kRights || kWhat == Inspect::kLimit;
  if (kHasDestination) {
    op.dst = register_offset(insn.op(0).reg.value);
    op.bits = static_cast<std::uint8_t>(insn.op(0).size / 8);
  }
  place_word_source(insn, kHasDestination ? 1 : 0, op);
  op.fn = op_inspect<kWhat>;
  return true;
}

bool select_arpl(Insn& insn, Op& op) {
  if (insn.is_mem(0)) {
    set_memory(insn, insn.op(0), op);
    op.aux = 1;
  } else {
    op.dst = register_offset(insn.op(0).reg.value);
  }
  op.src = register_offset(insn.op(1).reg.value);
  op.fn = op_arpl;
  return true;
}

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
    place_word(insn, op);
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
  table[ZYDIS_MNEMONIC_LLDT] = select_word_source<op_lldt>;
  table[ZYDIS_MNEMONIC_LTR] = select_word_source<op_ltr>;
  table[ZYDIS_MNEMONIC_SLDT] = select_store_word<op_sldt>;
  table[ZYDIS_MNEMONIC_STR] = select_store_word<op_str>;
  table[ZYDIS_MNEMONIC_SMSW] = select_store_word<op_smsw>;
  table[ZYDIS_MNEMONIC_LAR] = select_inspect<Inspect::kRights>;
  table[ZYDIS_MNEMONIC_LSL] = select_inspect<Inspect::kLimit>;
  table[ZYDIS_MNEMONIC_VERR] = select_inspect<Inspect::kRead>;
  table[ZYDIS_MNEMONIC_VERW] = select_inspect<Inspect::kWrite>;
  table[ZYDIS_MNEMONIC_ARPL] = select_arpl;
  table[ZYDIS_MNEMONIC_SWAPGS] = select_swapgs;
  table[ZYDIS_MNEMONIC_RDFSBASE] = select_base<op_read_base, kFs>;
  table[ZYDIS_MNEMONIC_RDGSBASE] = select_base<op_read_base, kGs>;
  table[ZYDIS_MNEMONIC_WRFSBASE] = select_base<op_write_base, kFs>;
  table[ZYDIS_MNEMONIC_WRGSBASE] = select_base<op_write_base, kGs>;
}

}  // namespace sevisor::emulator
