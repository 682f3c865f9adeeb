// x87 arithmetic: each instruction runs in a host stub between FXRSTOR and FXSAVE of the guest's image. Exceptions that
// the guest has unmasked do not trap there: they wait, on the host as in the guest, for the next instruction that
// looks, and a stub has none.
#include <array>
#include <cstring>

#include "emulator/cpu/vector.hpp"

namespace sevisor::emulator {

namespace {
constexpr std::size_t kPointers = kFxFop;  // FOP, FIP, FDP
constexpr std::size_t kPointersSize = kFxMxcsr - kFxFop;
}  // namespace

std::uint64_t call_x87_stub(Core& core, const Op* op, std::byte* memory) {
  return_mxcsr(core.vec);  // FXRSTOR loads MXCSR as well
  std::array<std::byte, kPointersSize> pointers;
  std::byte* at = core.vec.x87.data() + kPointers;
  std::memcpy(pointers.data(), at, kPointersSize);
  const std::uint64_t host_flags = call_stub(core, op, memory);
  std::memcpy(at, pointers.data(), kPointersSize);
  return host_flags;
}

namespace {

constexpr unsigned kInexact = 0x20;
constexpr unsigned kExceptions = 0x3f;

// dst, src: low and high byte of FOP, the opcode without its five constant bits (APM vol. 2, 11.5.5).
void note_pointers(Core& core, const Op* op, std::uint64_t va) {
  set_x87_field(core, kFxFop, static_cast<unsigned>(op->dst | op->src << 8));
  store(core.vec.x87.data() + kFxRip, core.rip_of(op));
  if ((op->aux & kStubMemory) != 0) store(core.vec.x87.data() + kFxDp, va - core.gpr[op->segment]);
}

const Op* op_x87(Core& core, const Op* op) {
  if ((core.cr0 & (kCr0Em | kCr0Ts)) != 0) return core.fault(kVectorNm);
  if (x87_pending(core)) return core.fault(kVectorMf);
  std::byte* memory = core.vec.operand.data();
  std::uint64_t va = 0;
  if ((op->aux & kStubMemory) != 0) {
    va = core.address(op);
    if (!core.read_slow(va, memory, op->bits)) return core.fault();
  }
  store(core.vec.operand.data() + kStubFlagsOffset, core.flags.rflags());
  const std::uint64_t host_flags = call_x87_stub(core, op, memory);
  note_pointers(core, op, va);
  if ((op->aux & kStubFlagsOut) != 0) core.flags.set_rflags(host_flags);
  return next(core, op);
}

// The forms that write memory.
const Op* op_x87_store(Core& core, const Op* op) {
  if ((core.cr0 & (kCr0Em | kCr0Ts)) != 0) return core.fault(kVectorNm);
  if (x87_pending(core)) return core.fault(kVectorMf);
  const std::uint64_t va = core.address(op);
  const auto before = core.vec.x87;
  static_cast<void>(call_x87_stub(core, op, core.vec.operand.data()));
  // An unmasked exception, but for an inexact result, keeps it from storing (APM vol. 1, 6.8.3).
  const unsigned unmasked = x87_field(core, kFxFsw) & ~x87_field(core, kFxFcw) & kExceptions;
  if ((unmasked & ~kInexact) == 0 && !core.write_slow(va, core.vec.operand.data(), op->bits)) {
    core.vec.x87 = before;
    return core.fault();
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
