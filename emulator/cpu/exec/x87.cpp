// x87 arithmetic: each instruction runs in a host stub, with the guest's registers in the host's unit (host_unit.hpp).
// Exceptions that the guest has unmasked do not trap there: they wait, on the host as in the guest, for the next
// instruction that looks, and a stub has none.
#include <cstring>

#include "emulator/cpu/exec/vector.hpp"

namespace sevisor::emulator {

namespace {

constexpr unsigned kInexact = 0x20;

bool available_and_quiet(Core& core) {
  if ((core.cr0 & (kCr0Em | kCr0Ts)) != 0) return core.raise(kVectorNm);
  return !x87_pending(core) || core.raise(kVectorMf);
}

// dst, src: low and high byte of FOP, the opcode without its five constant bits (APM vol. 2, 11.5.5).
void note_pointers(Core& core, const Op* op, std::uint64_t va) {
  set_x87_field(core, kFxFop, static_cast<unsigned>(op->dst | op->src << 8));
  store(core.vec.x87.data() + kFxRip, core.rip_of(op));
  core.vec.x87_cs = core.seg[kCs].selector;
  if ((op->aux & kStubMemory) == 0) return;
  store(core.vec.x87.data() + kFxDp, va - core.gpr[op->segment]);
  core.vec.x87_ds = core.seg[op->segment_register].selector;
}

const Op* op_x87(Core& core, const Op* op) {
  if (!available_and_quiet(core)) return core.fault();
  std::byte* memory = core.vec.operand.data();
  std::uint64_t va = 0;
  if ((op->aux & kStubMemory) != 0) {
    va = core.address(op);
    if (const std::byte* direct = core.peek(va, op->bits)) {
      memory = const_cast<std::byte*>(direct);  // only read
    } else if (!core.read_slow(va, memory, op->bits)) {
      return core.fault();
    }
  }
  if ((op->aux & kStubFlagsIn) != 0) store(core.vec.operand.data() + kStubFlagsOffset, core.flags.rflags());
  const std::uint64_t host_flags = call_x87_stub(core, op, memory);
  note_pointers(core, op, va);
  if ((op->aux & kStubFlagsOut) != 0) core.flags.set_rflags(host_flags);
  return next(core, op);
}

// Of the forms that write memory: an unmasked exception, any but for an inexact result, keeps them from storing (APM
// vol. 1, 6.8.3).
bool keeps_from_storing(const Core& core) {
  return (x87_field(core, kFxFsw) & ~x87_field(core, kFxFcw) & kX87Exceptions & ~kInexact) != 0;
}

const Op* op_x87_store(Core& core, const Op* op) {
  if (!available_and_quiet(core)) return core.fault();
  const std::uint64_t va = core.address(op);
  const bool masked = x87_all_masked(core.vec);
  if (std::byte* direct = masked ? core.poke(va, op->bits) : nullptr) {
    static_cast<void>(call_x87_stub(core, op, direct));
  } else {
    // The page is looked at before the number, as AMD's processors do.
    if (!core.aligned(va, op->bits) || !core.probe_write(va, op->bits)) return core.fault();
    static_cast<void>(call_x87_stub(core, op, core.vec.operand.data()));
    const bool stores = masked || !keeps_from_storing(core);
    if (stores && !core.write_slow(va, core.vec.operand.data(), op->bits)) return core.fault();
  }
  note_pointers(core, op, va);
  return next(core, op);
}

// FWAIT: only looks at pending exceptions. CR0.MP joins CR0.TS.
const Op* op_fwait(Core& core, const Op* op) {
  if ((core.cr0 & (kCr0Mp | kCr0Ts)) == (kCr0Mp | kCr0Ts)) return core.fault(kVectorNm);
  if (x87_pending(core)) return core.fault(kVectorMf);
  return next(core, op);
}

// FENI, FDISI, FSETPM of the coprocessors before the 80387 do nothing.
const Op* op_x87_nothing(Core& core, const Op* op) {
  if ((core.cr0 & (kCr0Em | kCr0Ts)) != 0) return core.fault(kVectorNm);
  return next(core, op);
}

}  // namespace

bool select_x87(Insn& insn, Op& op) {
  switch (insn.info.mnemonic) {
    case ZYDIS_MNEMONIC_FWAIT:
      op.fn = op_fwait;
      return true;
    case ZYDIS_MNEMONIC_FENI8087_NOP:
    case ZYDIS_MNEMONIC_FDISI8087_NOP:
    case ZYDIS_MNEMONIC_FSETPM287_NOP:
      op.fn = op_x87_nothing;
      return true;
    default:
      break;
  }
  if (select_x87_control(insn, op)) return true;
  StubTraits traits;
  if (!make_stub(insn, op, traits)) return false;
  const std::size_t modrm_at = insn.info.raw.modrm.offset;
  op.dst = std::to_integer<std::uint8_t>(insn.bytes[modrm_at]);
  op.src = std::to_integer<std::uint8_t>(insn.bytes[modrm_at - 1]) & 7;
  op.fn = (op.aux & kStubWrites) != 0 ? op_x87_store : op_x87;
  return true;
}

}  // namespace sevisor::emulator
