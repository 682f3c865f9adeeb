// LDTR and TR, and the instructions that inspect descriptors (APM vol. 2, 4.5 and 4.6; vol. 3).
#include "emulator/cpu/system.hpp"

namespace sevisor::emulator {

// A destination of store_word: register with its size, or memory as size 0.
void place_stored_word(const Insn& insn, Op& op) {
  if (insn.is_mem(0)) {
    set_memory(insn, insn.op(0), op);
    op.bits = 0;
  } else {
    op.dst = register_offset(insn.op(0).reg.value);
    op.bits = static_cast<std::uint8_t>(insn.op(0).size / 8);
  }
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

namespace {

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

// --- inspection ------------------------------------------------------------------------------------------------------

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
  place_stored_word(insn, op);
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

}  // namespace

void add_descriptors(SelectorTable& table) {
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
}

}  // namespace sevisor::emulator
