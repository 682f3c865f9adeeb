// INTn, INT3, INTO, INT1, SYSCALL, SYSRET, SYSENTER and SYSEXIT (APM vol. 2, 6.1 and 8.7; vol. 3).
#include "emulator/cpu/system.hpp"

namespace sevisor::emulator {

namespace {

// --- software interrupts ---------------------------------------------------------------------------------------------

const Op* software_interrupt(Core& core, const Op* op, std::uint8_t vector) {
  const Event event{.vector = vector, .software = true, .return_rip = core.rip_after(op)};
  if (!enter_event(core, event)) return core.fault();
  core.debug_shadow_on = true;  // the gate cleared TF: no trap after this instruction
  return core.leave(Leave::kLookup);
}

const Op* op_int(Core& core, const Op* op) { return software_interrupt(core, op, static_cast<std::uint8_t>(op->imm)); }
const Op* op_int3(Core& core, const Op* op) {
  if (core.controls.debugger != nullptr && core.controls.debugger->takes_int3) {
    core.fault_info = Fault{.vector = kVectorBp, .software = true};
    return core.fault();
  }
  return software_interrupt(core, op, kVectorBp);
}
const Op* op_into(Core& core, const Op* op) {
  return core.flags.of() ? software_interrupt(core, op, kVectorOf) : core.leave_at(core.rip_after(op));
}
const Op* op_int1(Core& core, const Op* op) {
  core.rip = core.rip_after(op);
  core.fault_info = Fault{.vector = kVectorDb, .trap = true};
  return core.fault();
}

// --- fast system calls -----------------------------------------------------------------------------------------------

constexpr unsigned kStarSyscall = 32;
constexpr unsigned kStarSysret = 48;
constexpr std::uint16_t kStackAfterCode = 8;        // SS follows CS in the GDT
constexpr std::uint16_t kSysret64AfterCompat = 16;  // 64-bit CS follows the 32-bit one and SS
constexpr std::uint16_t kSysexitCode = 16;
constexpr std::uint16_t kSysexitStack = 24;

const Op* op_syscall(Core& core, const Op* op) {
  if ((core.efer & kEferSce) == 0 || !protected_mode(core)) return core.fault(kVectorUd);
  const auto selector = static_cast<std::uint16_t>(core.msr.star >> kStarSyscall & kSelectorError);
  const std::uint64_t return_rip = core.rip_after(op);
  std::uint64_t target = core.msr.star & 0xffff'ffff;
  const bool from_64bit = core.code64;
  core.gpr[1] = return_rip;
  if (core.long_mode) {
    target = from_64bit ? core.msr.lstar : core.msr.cstar;
    core.gpr[11] = core.rflags();
    core.set_rflags(core.rflags() & ~core.msr.sfmask & ~kFlagRf);
  } else {
    core.system_flags &= ~(kFlagIf | kFlagVm | kFlagRf);
  }
  set_flat_code(core, selector, 0, core.long_mode);
  set_flat_stack(core, static_cast<std::uint16_t>(selector + kStackAfterCode), 0);
  core.cpl = 0;
  core.step_due = (core.system_flags & kFlagTf) != 0;  // a masked TF: no trap after this instruction
  return go_on(core, target);
}

// op->bits: 8 returns to 64-bit code.
const Op* op_sysret(Core& core, const Op* op) {
  if ((core.efer & kEferSce) == 0) return core.fault(kVectorUd);
  if (!protected_mode(core) || core.cpl != 0) return core.fault(kVectorGp, 0);
  const auto base = static_cast<std::uint16_t>(core.msr.star >> kStarSysret);
  const bool to_long = op->bits == 8;
  const std::uint64_t target = to_long ? core.gpr[1] : core.gpr[1] & 0xffff'ffff;
  const auto code = static_cast<std::uint16_t>(to_long ? base + kSysret64AfterCompat : base);
  set_flat_code(core, code | kSelectorRpl, 3, to_long);
  set_flat_stack(core, static_cast<std::uint16_t>(base + kStackAfterCode) | kSelectorRpl, 3);
  if (core.long_mode) {
    constexpr std::uint64_t kImplemented =
        kStatusFlags | kFlagTf | kFlagIf | kFlagDf | kFlagIopl | kFlagNt | kFlagAc | kFlagVif | kFlagVip | kFlagId;
    core.set_rflags(core.gpr[11] & kImplemented);
  } else {
    core.system_flags |= kFlagIf;
  }
  core.cpl = 3;
  core.step_due = (core.system_flags & kFlagTf) != 0;  // one that is set now traps before user code has run
  return go_on(core, target);
}

// AMD processors have SYSENTER and SYSEXIT in legacy mode only (APM vol. 3).
const Op* op_sysenter(Core& core, const Op* /*op*/) {
  if (core.long_mode) return core.fault(kVectorUd);
  const auto selector = static_cast<std::uint16_t>(core.msr.sysenter_cs & kSelectorError);
  if (!protected_mode(core) || selector == 0) return core.fault(kVectorGp, 0);
  core.system_flags &= ~(kFlagIf | kFlagVm | kFlagRf);
  set_flat_code(core, selector, 0, false);
  set_flat_stack(core, static_cast<std::uint16_t>(selector + kStackAfterCode), 0);
  core.cpl = 0;
  core.gpr[kRegRsp] = core.msr.sysenter_esp & 0xffff'ffff;
  return go_on(core, core.msr.sysenter_eip & 0xffff'ffff);
}

const Op* op_sysexit(Core& core, const Op* /*op*/) {
  if (core.long_mode) return core.fault(kVectorUd);
  const auto base = static_cast<std::uint16_t>(core.msr.sysenter_cs & kSelectorError);
  if (!protected_mode(core) || core.cpl != 0 || base == 0) return core.fault(kVectorGp, 0);
  set_flat_code(core, static_cast<std::uint16_t>(base + kSysexitCode) | kSelectorRpl, 3, false);
  set_flat_stack(core, static_cast<std::uint16_t>(base + kSysexitStack) | kSelectorRpl, 3);
  core.cpl = 3;
  core.gpr[kRegRsp] = core.gpr[1] & 0xffff'ffff;
  return go_on(core, core.gpr[2] & 0xffff'ffff);
}

// --- selectors -------------------------------------------------------------------------------------------------------

template <Handler kHandler>
bool select_plain(Insn& insn, Op& op) {
  op.fn = kHandler;
  set_size(insn, op);
  insn.ends_block = true;
  return true;
}

bool select_int(Insn& insn, Op& op) {
  op.imm = insn.op(0).imm.value.u & 0xff;
  return select_plain<op_int>(insn, op);
}

}  // namespace

void add_system_calls(SelectorTable& table) {
  table[ZYDIS_MNEMONIC_INT] = select_int;
  table[ZYDIS_MNEMONIC_INT3] = select_plain<op_int3>;
  table[ZYDIS_MNEMONIC_INTO] = select_plain<op_into>;
  table[ZYDIS_MNEMONIC_INT1] = select_plain<op_int1>;
  table[ZYDIS_MNEMONIC_SYSCALL] = select_plain<op_syscall>;
  table[ZYDIS_MNEMONIC_SYSRET] = select_plain<op_sysret>;
  table[ZYDIS_MNEMONIC_SYSENTER] = select_plain<op_sysenter>;
  table[ZYDIS_MNEMONIC_SYSEXIT] = select_plain<op_sysexit>;
}

}  // namespace sevisor::emulator
