// Control, debug and extended control registers (APM vol. 2, 3.1, 13.1.1), with the write traps that KVM enables.
#include "emulator/cpu/intercepts.hpp"
#include "emulator/cpu/system.hpp"

namespace sevisor::emulator {

namespace {

constexpr std::uint64_t kCr0Kept =
    kCr0Pe | kCr0Mp | kCr0Em | kCr0Ts | kCr0Ne | kCr0Wp | kCr0Am | kCr0Nw | kCr0Cd | kCr0Pg;
constexpr std::uint64_t kCr0Paging = kCr0Pg | kCr0Wp | kCr0Pe;
constexpr std::uint64_t kCr0MachineStatus = kCr0Pe | kCr0Mp | kCr0Em | kCr0Ts;  // LMSW
constexpr std::uint64_t kCr4Paging = kCr4Pse | kCr4Pae | kCr4Pge | kCr4Pcide | kCr4Smep | kCr4Smap;
constexpr std::uint64_t kCr3Pcid = 0xfff;
constexpr std::uint64_t kCr3NoFlush = std::uint64_t{1} << 63;
constexpr std::uint64_t kMaxCr8 = 15;

// Leaves after a write of CR0, CR4 or CR8: with the write trap when the value changed.
template <ghcb::ExitCode kTrap>
const Op* after_write(Core& core, const Op* op, std::uint64_t before, std::uint64_t value) {
  const std::uint64_t next = core.rip_after(op);
  core.update_mode();
  return before == value ? core.leave_at(next) : intercept<kTrap>(core, op, value);
}

const Op* write_cr0(Core& core, const Op* op, std::uint64_t value) {
  if ((value >> 32) != 0) return core.fault(kVectorGp, 0);
  value = (value & kCr0Kept) | kCr0Et;
  const bool paging = (value & kCr0Pg) != 0;
  if (paging && (value & kCr0Pe) == 0) return core.fault(kVectorGp, 0);
  if ((value & kCr0Nw) != 0 && (value & kCr0Cd) == 0) return core.fault(kVectorGp, 0);
  const std::uint64_t before = core.cr0;
  const bool paging_before = (before & kCr0Pg) != 0;
  std::uint64_t efer = core.efer;
  if (paging && !paging_before && (efer & kEferLme) != 0) {
    // Long mode begins (14.6.1): with PAE, from compatibility-like code.
    if ((core.cr4 & kCr4Pae) == 0 || (core.seg[kCs].attributes & kSegLong) != 0) return core.fault(kVectorGp, 0);
    efer |= kEferLma;
  }
  if (!paging && paging_before && core.long_mode) {
    if (core.code64 || (core.cr4 & kCr4Pcide) != 0) return core.fault(kVectorGp, 0);
    efer &= ~kEferLma;
  }
  core.cr0 = value;
  core.efer = efer;
  if (((before ^ value) & kCr0Paging) != 0) core.flush_tlb(false);
  return after_write<ghcb::kExitCr0WriteTrap>(core, op, before, value);
}

const Op* write_cr3(Core& core, const Op* op, std::uint64_t value) {
  if (core.long_mode) {
    // With PCIDs bit 63 asks to keep the translations, and may be ignored (5.5.1).
    if ((core.cr4 & kCr4Pcide) != 0) value &= ~kCr3NoFlush;
    const std::uint64_t c_bit = c_bit_mask(core.config);
    if (((value & ~c_bit) >> core.config.physical_bits) != 0) return core.fault(kVectorGp, 0);
  } else {
    value &= 0xffff'ffff;
  }
  core.cr3 = value;
  const std::uint64_t next = core.rip_after(op);
  core.flush_tlb((core.cr4 & kCr4Pge) != 0);
  return core.leave_at(next);
}

const Op* write_cr4(Core& core, const Op* op, std::uint64_t value) {
  if ((value & ~kCr4Implemented) != 0) return core.fault(kVectorGp, 0);
  if (core.long_mode && (value & kCr4Pae) == 0) return core.fault(kVectorGp, 0);
  if ((value & ~core.cr4 & kCr4Pcide) != 0 && (!core.long_mode || (core.cr3 & kCr3Pcid) != 0)) {
    return core.fault(kVectorGp, 0);
  }
  const std::uint64_t before = core.cr4;
  core.cr4 = value;
  if (((before ^ value) & kCr4Paging) != 0) core.flush_tlb(false);
  return after_write<kExitCr4WriteTrap>(core, op, before, value);
}

const Op* write_cr8(Core& core, const Op* op, std::uint64_t value) {
  if (value > kMaxCr8) return core.fault(kVectorGp, 0);
  const std::uint64_t before = core.cr8;
  core.cr8 = value;
  return after_write<kExitCr8WriteTrap>(core, op, before, value);
}

// dst: number of the control register; src: general register.
const Op* op_write_cr(Core& core, const Op* op) {
  if (core.cpl != 0) return core.fault(kVectorGp, 0);
  std::uint64_t value = core.reg<std::uint64_t>(op->src);
  if (!core.code64) value &= 0xffff'ffff;
  switch (op->dst) {
    case 0:
      return write_cr0(core, op, value);
    case 2:
      core.cr2 = value;
      return op + 1;
    case 3:
      return write_cr3(core, op, value);
    case 4:
      return write_cr4(core, op, value);
    case 8:
      return write_cr8(core, op, value);
    default:
      return core.fault(kVectorUd);
  }
}

// dst: general register; src: number of the control register.
const Op* op_read_cr(Core& core, const Op* op) {
  if (core.cpl != 0) return core.fault(kVectorGp, 0);
  std::uint64_t value = 0;
  switch (op->src) {
    case 0:
      value = core.cr0;
      break;
    case 2:
      value = core.cr2;
      break;
    case 3:
      value = core.cr3;
      break;
    case 4:
      value = core.cr4;
      break;
    case 8:
      value = core.cr8;
      break;
    default:
      return core.fault(kVectorUd);
  }
  core.set_reg(op->dst, core.code64 ? value : value & 0xffff'ffff);
  return op + 1;
}

const Op* op_clts(Core& core, const Op* op) {
  if (core.cpl != 0) return core.fault(kVectorGp, 0);
  return write_cr0(core, op, core.cr0 & ~kCr0Ts);
}

// PE can be set but not cleared.
const Op* op_lmsw(Core& core, const Op* op) {
  if (core.cpl != 0) return core.fault(kVectorGp, 0);
  std::uint16_t word = 0;
  if (op->aux != 0) {
    if (!core.read(core.address(op), word)) return core.fault();
  } else {
    word = core.reg<std::uint16_t>(op->src);
  }
  const std::uint64_t kept = core.cr0 & ~(kCr0MachineStatus & ~kCr0Pe);
  return write_cr0(core, op, kept | (word & kCr0MachineStatus));
}

// --- debug registers -------------------------------------------------------------------------------------------------

// DR4 and DR5 are DR6 and DR7 while CR4.DE is 0. False: #UD.
bool debug_register(Core& core, unsigned number, unsigned& out) {
  out = number;
  if (number != 4 && number != 5) return true;
  out = number + 2;
  return (core.cr4 & kCr4De) == 0;
}

// DR7.GD (APM vol. 2, 13.1.1.4). The handler may look at the registers: entering it clears GD.
bool general_detect(Core& core) {
  if ((core.dr7 & kDr7General) == 0 || !core.owns_debug_registers()) return false;
  core.dr6 = (core.dr6 & ~kDr6Hits) | kDr6Access;
  core.fault_info = Fault{.vector = kVectorDb};
  return true;
}

const Op* op_read_dr(Core& core, const Op* op) {
  unsigned number = 0;
  if (!debug_register(core, op->src, number)) return core.fault(kVectorUd);
  if (core.cpl != 0) return core.fault(kVectorGp, 0);
  if (general_detect(core)) return core.fault();
  if (number == 7 && !core.owns_debug_registers()) return intercept<ghcb::kExitReadDr7>(core, op);
  const std::uint64_t value = number == 7 ? core.dr7 : number == 6 ? core.dr6 : core.dr[number];
  core.set_reg(op->dst, core.code64 ? value : value & 0xffff'ffff);
  return op + 1;
}

const Op* op_write_dr(Core& core, const Op* op) {
  unsigned number = 0;
  if (!debug_register(core, op->dst, number)) return core.fault(kVectorUd);
  if (core.cpl != 0) return core.fault(kVectorGp, 0);
  if (general_detect(core)) return core.fault();
  std::uint64_t value = core.reg<std::uint64_t>(op->src);
  if (!core.code64) value &= 0xffff'ffff;
  if (number >= 6 && (value >> 32) != 0) return core.fault(kVectorGp, 0);
  if (number == 7) {
    if (!core.owns_debug_registers()) return intercept<ghcb::kExitWriteDr7>(core, op);
    core.dr7 = kDr7Fixed | (value & kDr7Writable);
    const std::uint64_t next = core.rip_after(op);
    core.update_mode();
    return core.leave_at(next);
  }
  if (number == 6) {
    core.dr6 = kDr6Fixed | (value & kDr6Writable);
  } else {
    core.dr[number] = value;
  }
  return op + 1;
}

// --- extended control registers --------------------------------------------------------------------------------------

const Op* op_xgetbv(Core& core, const Op* op) {
  constexpr std::uint32_t kInUse = 1;  // XCR0 and what is not in its initial state: here all of it
  if ((core.cr4 & kCr4Osxsave) == 0) return core.fault(kVectorUd);
  if (static_cast<std::uint32_t>(core.gpr[1]) > kInUse) return core.fault(kVectorGp, 0);
  core.gpr[0] = core.vec.xcr0 & 0xffff'ffff;
  core.gpr[2] = core.vec.xcr0 >> 32;
  return op + 1;
}

const Op* op_xsetbv(Core& core, const Op* op) {
  if ((core.cr4 & kCr4Osxsave) == 0) return core.fault(kVectorUd);
  const std::uint64_t value = (core.gpr[2] << 32) | (core.gpr[0] & 0xffff'ffff);
  if (core.cpl != 0 || static_cast<std::uint32_t>(core.gpr[1]) != 0 || !valid_xcr0(value)) {
    return core.fault(kVectorGp, 0);
  }
  core.vec.xcr0 = value;
  core.update_mode();
  return core.leave_at(core.rip_after(op));
}

template <Handler kHandler>
bool select_plain(Insn& insn, Op& op) {
  op.fn = kHandler;
  insn.last = true;
  return true;
}

bool select_lmsw(Insn& insn, Op& op) {
  if (insn.is_mem(0)) {
    set_memory(insn, insn.op(0), op);
    op.aux = 1;
  } else {
    op.src = register_offset(insn.op(0).reg.value);
  }
  op.fn = op_lmsw;
  insn.last = true;
  return true;
}

std::uint8_t register_number(ZydisRegister reg) { return static_cast<std::uint8_t>(ZydisRegisterGetId(reg)); }

}  // namespace

bool select_control_register(Insn& insn, Op& op) {
  const auto class_of = [&insn](unsigned n) { return ZydisRegisterGetClass(insn.op(n).reg.value); };
  if (class_of(0) == ZYDIS_REGCLASS_CONTROL || class_of(0) == ZYDIS_REGCLASS_DEBUG) {
    op.dst = register_number(insn.op(0).reg.value);
    op.src = register_offset(insn.op(1).reg.value);
    op.fn = class_of(0) == ZYDIS_REGCLASS_CONTROL ? op_write_cr : op_write_dr;
    insn.last = true;
  } else {
    op.dst = register_offset(insn.op(0).reg.value);
    op.src = register_number(insn.op(1).reg.value);
    op.fn = class_of(1) == ZYDIS_REGCLASS_CONTROL ? op_read_cr : op_read_dr;
  }
  return true;
}

void add_control_registers(SelectorTable& table) {
  table[ZYDIS_MNEMONIC_CLTS] = select_plain<op_clts>;
  table[ZYDIS_MNEMONIC_LMSW] = select_lmsw;
  table[ZYDIS_MNEMONIC_XGETBV] = select_plain<op_xgetbv>;
  table[ZYDIS_MNEMONIC_XSETBV] = select_plain<op_xsetbv>;
}

}  // namespace sevisor::emulator
