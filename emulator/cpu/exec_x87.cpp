// x87 and MMX: each instruction runs in a host stub between FXRSTOR and FXSAVE of the guest's image.
// Instruction and operand pointers (FIP, FDP, FOP) read as 0: see forget_x87_pointers().
#include <array>
#include <cstring>

#include "emulator/cpu/host_stubs.hpp"
#include "emulator/cpu/vector.hpp"

#if defined(__clang__)
#define SEVISOR_CALLS_STUB __attribute__((no_sanitize("function")))
#else
#define SEVISOR_CALLS_STUB
#endif

namespace sevisor::emulator {

void forget_x87_pointers(VectorState& state) noexcept { std::memset(state.x87.data() + kFxFop, 0, kFxMxcsr - kFxFop); }

namespace {

constexpr std::uint16_t kExceptions = 0x3f;
constexpr std::uint16_t kPreComputation = 0x07;  // IE, DE, ZE: no result is stored when unmasked
constexpr std::uint16_t kFswEs = 0x80;
constexpr std::uint16_t kFswBusy = 0x8000;

std::uint16_t field(const Core& core, std::size_t offset) { return load<std::uint16_t>(core.vec.x87.data() + offset); }
void set_field(Core& core, std::size_t offset, unsigned value) {
  store(core.vec.x87.data() + offset, static_cast<std::uint16_t>(value));
}

bool pending(const Core& core) { return (field(core, kFxFsw) & ~field(core, kFxFcw) & kExceptions) != 0; }

SEVISOR_CALLS_STUB std::uint64_t call(Core& core, const Op* op, std::byte* memory) {
  HostStub stub;
  std::memcpy(&stub, &op->imm, sizeof stub);
  const std::uint64_t host_flags = stub(&core.vec, memory, core.gpr.data());
  forget_x87_pointers(core.vec);
  return host_flags;
}

// The host must not trap: it computes with everything masked, and what the guest has unmasked becomes pending after.
std::uint64_t run_unmasked(Core& core, const Op* op, std::byte* memory) {
  const std::uint16_t fcw = field(core, kFxFcw);
  const std::uint16_t before = field(core, kFxFsw);
  const auto saved = core.vec.x87;
  set_field(core, kFxFcw, fcw | kExceptions);
  const std::uint64_t host_flags = call(core, op, memory);
  const unsigned raised = field(core, kFxFsw) & ~before & ~fcw & kExceptions;
  const unsigned fsw = field(core, kFxFsw);
  if ((raised & kPreComputation) != 0) {
    core.vec.x87 = saved;
    set_field(core, kFxFsw, before | (fsw & kExceptions));
  }
  set_field(core, kFxFcw, fcw);
  if (raised != 0) set_field(core, kFxFsw, field(core, kFxFsw) | kFswEs | kFswBusy);
  return host_flags;
}

// kMmx: CR0.EM makes MMX instructions #UD, x87 ones #NM.
template <bool kMmx>
const Op* op_x87(Core& core, const Op* op) {
  if ((core.cr0 & kCr0Em) != 0) return core.fault(kMmx ? kVectorUd : kVectorNm);
  if ((core.cr0 & kCr0Ts) != 0) return core.fault(kVectorNm);
  if ((op->aux & kStubNoWait) == 0 && pending(core)) return core.fault(kVectorMf);
  alignas(16) std::array<std::byte, kStubMemorySize> memory;
  std::uint64_t va = 0;
  if ((op->aux & kStubMemory) != 0) {
    va = core.address(op);
    if ((op->aux & kStubReads) != 0 && !core.read_slow(va, memory.data(), op->bits)) return core.fault();
    if ((op->aux & kStubWrites) != 0 && !core.probe_write(va, op->bits)) return core.fault();
  }
  store(memory.data() + kStubMemorySize - 8, core.flags.rflags());  // for FCMOVcc
  const bool all_masked = (field(core, kFxFcw) & kExceptions) == kExceptions;
  std::uint64_t host_flags = 0;
  if (kMmx || all_masked || (op->aux & kStubControl) != 0) {
    host_flags = call(core, op, memory.data());
  } else {
    host_flags = run_unmasked(core, op, memory.data());
  }
  if ((op->aux & kStubWrites) != 0 && !core.write_slow(va, memory.data(), op->bits)) return core.fault();
  if ((op->aux & kStubFlagsOut) != 0) core.flags.set_rflags(host_flags);
  return op + 1;
}

// FWAIT: only looks at pending exceptions. CR0.MP joins CR0.TS.
const Op* op_fwait(Core& core, const Op* op) {
  if ((core.cr0 & (kCr0Mp | kCr0Ts)) == (kCr0Mp | kCr0Ts)) return core.fault(kVectorNm);
  if (pending(core)) return core.fault(kVectorMf);
  return op + 1;
}

// FENI, FDISI, FSETPM of the coprocessors before the 80387 do nothing.
const Op* op_x87_nothing(Core& core, const Op* op) {
  if ((core.cr0 & (kCr0Em | kCr0Ts)) != 0) return core.fault(kVectorNm);
  return op + 1;
}

bool is_no_wait(ZydisMnemonic mnemonic) {
  switch (mnemonic) {
    case ZYDIS_MNEMONIC_FNCLEX:
    case ZYDIS_MNEMONIC_FNINIT:
    case ZYDIS_MNEMONIC_FNSAVE:
    case ZYDIS_MNEMONIC_FNSTCW:
    case ZYDIS_MNEMONIC_FNSTENV:
    case ZYDIS_MNEMONIC_FNSTSW:
      return true;
    default:
      return false;
  }
}

bool is_control(ZydisMnemonic mnemonic) {
  return is_no_wait(mnemonic) || mnemonic == ZYDIS_MNEMONIC_FLDCW || mnemonic == ZYDIS_MNEMONIC_FLDENV ||
         mnemonic == ZYDIS_MNEMONIC_FRSTOR;
}

bool uses_mmx_rules(const Insn& insn) {
  const auto set = insn.info.meta.isa_set;
  return set != ZYDIS_ISA_SET_X87 && set != ZYDIS_ISA_SET_FCMOV && set != ZYDIS_ISA_SET_SSE3X87;
}

}  // namespace

bool select_x87(Insn& insn, Op& op) {
  const auto mnemonic = insn.info.mnemonic;
  if (mnemonic == ZYDIS_MNEMONIC_FWAIT) {
    op.fn = op_fwait;
    return true;
  }
  if (mnemonic == ZYDIS_MNEMONIC_FENI8087_NOP || mnemonic == ZYDIS_MNEMONIC_FDISI8087_NOP ||
      mnemonic == ZYDIS_MNEMONIC_FSETPM287_NOP) {
    op.fn = op_x87_nothing;
    return true;
  }
  if (!make_stub(insn, op)) return false;
  if (is_no_wait(mnemonic)) op.aux |= kStubNoWait;
  if (is_control(mnemonic)) op.aux |= kStubControl;
  op.fn = uses_mmx_rules(insn) ? op_x87<true> : op_x87<false>;
  return true;
}

}  // namespace sevisor::emulator
