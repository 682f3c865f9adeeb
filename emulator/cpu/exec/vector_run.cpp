// Runs SSE, AVX and MMX instructions in their host stubs, under the rules of their unit.
#include <emmintrin.h>

#include "emulator/cpu/exec/simd_trap.hpp"
#include "emulator/cpu/exec/vector.hpp"

namespace sevisor::emulator {

bool refuse_sse(Core& core) noexcept {
  const bool undefined = (core.cr0 & kCr0Em) != 0 || (core.cr4 & kCr4Osfxsr) == 0;
  return core.raise(undefined ? kVectorUd : kVectorNm);
}

bool refuse_avx(Core& core) noexcept {
  const bool undefined =
      (core.cr0 & kCr0Pe) == 0 || (core.cr4 & kCr4Osxsave) == 0 || (core.vec.xcr0 & kXcr0Ymm) != kXcr0Ymm;
  return core.raise(undefined ? kVectorUd : kVectorNm);
}

namespace {

enum class Unit : std::uint8_t {
  kSse,
  kAvx,
  kMmx,
  kMmxAndSse,  // names registers of both
};

constexpr bool has_mmx(Unit unit) { return unit == Unit::kMmx || unit == Unit::kMmxAndSse; }

template <Unit kUnit>
bool available(Core& core) {
  if constexpr (kUnit == Unit::kSse) return sse_available(core);
  if constexpr (kUnit == Unit::kAvx) return avx_available(core);
  if (kUnit == Unit::kMmxAndSse && (core.cr4 & kCr4Osfxsr) == 0) return core.raise(kVectorUd);
  if ((core.cr0 & kCr0Em) != 0) return core.raise(kVectorUd);
  if ((core.cr0 & kCr0Ts) != 0) return core.raise(kVectorNm);
  return !x87_pending(core) || core.raise(kVectorMf);
}

// Where the stub finds its memory operand: in the guest's page if that is at hand, else a copy. nullptr: a fault is
// noted. A floating-point store raises its exceptions before those of the page, but for VCVTPS2PH on AMD's processors.
template <bool kFloat>
std::byte* locate(Core& core, const Op* op) {
  const std::uint64_t va = core.address(op);
  constexpr std::uint64_t kAlignment = 16;
  const bool aligned = (va & (kAlignment - 1)) == 0;
  // MXCSR.MM waives it.
  const bool must = (op->aux & kStubAligned) != 0 && (op->rep & kStubMayMisalign) == 0;
  if (must && !aligned && (core.vec.mxcsr & kMxcsrMisaligned) == 0) {
    static_cast<void>(core.raise(kVectorGp, 0));
    return nullptr;
  }
  std::byte* copy = core.vec.operand.data();
  if ((op->aux & kStubReads) != 0) {
    if ((op->aux & kStubAligned) == 0 || aligned) {
      if (const std::byte* direct = core.peek(va, op->bits)) return const_cast<std::byte*>(direct);  // only read
    }
    return core.read_slow(va, copy, op->bits) ? copy : nullptr;
  }
  if (kFloat) return (op->rep & kStubStoresFirst) == 0 || core.probe_write(va, op->bits) ? copy : nullptr;
  if (std::byte* direct = core.poke(va, op->bits)) return direct;
  return core.probe_write(va, op->bits) ? copy : nullptr;
}

template <Unit kUnit>
std::uint64_t call(Core& core, const Op* op, std::byte* memory) {
  return has_mmx(kUnit) ? call_x87_stub(core, op, memory) : call_stub(core, op, memory);
}

// With all exceptions masked. The flags raised are returned in `raised`.
template <Unit kUnit>
std::uint64_t call_masked(Core& core, const Op* op, std::byte* memory, std::uint32_t control, std::uint32_t& raised) {
  _mm_setcsr((control & kMxcsrControl) | kMxcsrMasks);
  const std::uint64_t host_flags = call<kUnit>(core, op, memory);
  raised = _mm_getcsr() & kMxcsrFlags;
  _mm_setcsr(kMxcsrReset);
  return_x87(core.vec);
  return host_flags;
}

// An unmasked exception stores no result (APM vol. 1, 4.10): everything as before but for the flags in MXCSR. The
// instruction runs masked first; only if that raises what the guest has unmasked, the host's processor is asked for the
// exact flags. False: #XF is noted.
template <Unit kUnit>
[[gnu::noinline]] bool call_unmasked(Core& core, const Op* op, std::byte* memory, std::uint64_t& host_flags) {
  constexpr std::uint32_t kUnderflow = 0x10;
  return_units(core.vec);
  const std::uint32_t before = core.vec.mxcsr;
  const std::uint32_t unmasked = ~(before >> kMxcsrMaskShift) & kMxcsrFlags;
  const VectorState saved = core.vec;
  const auto saved_gpr = core.gpr;
  const auto undo = [&] {
    const auto operand = core.vec.operand;
    core.vec = saved;
    core.vec.operand = operand;
    core.gpr = saved_gpr;
  };

  std::uint32_t raised = 0;
  host_flags = call_masked<kUnit>(core, op, memory, before, raised);
  bool traps = (raised & unmasked) != 0;
  if (!traps && (unmasked & kUnderflow) != 0) {
    // Unmasked, a tiny result traps even if it is exact; masked, only flush-to-zero shows it, which VCVTPS2PH ignores.
    undo();
    std::uint32_t with_ftz = kUnderflow;
    if ((op->rep & kStubIgnoresFtz) == 0)
      static_cast<void>(call_masked<kUnit>(core, op, memory, before | kMxcsrFtz, with_ftz));
    traps = (with_ftz & kUnderflow) != 0;
    if (!traps) {
      undo();
      host_flags = call_masked<kUnit>(core, op, memory, before, raised);
    }
  }
  core.vec.mxcsr = before | raised;
  if (!traps) return true;
  undo();
  const std::uint32_t guest = before & (kMxcsrControl | kMxcsrMasks);
  const auto after = run_trapping(core, op, memory, guest);
  undo();
  if (!after) {
    host_flags = call_masked<kUnit>(core, op, memory, before, raised);
    core.vec.mxcsr = before | raised;
    return true;
  }
  core.vec.mxcsr = before | (*after & kMxcsrFlags);
  return core.raise((core.cr4 & kCr4Osxmmexcpt) != 0 ? kVectorXf : kVectorUd);
}

template <Unit kUnit, bool kFloat>
const Op* op_stub(Core& core, const Op* op) {
  if (!available<kUnit>(core)) return core.fault();
  std::byte* memory = core.vec.operand.data();
  if ((op->aux & kStubMemory) != 0) {
    memory = locate<kFloat>(core, op);
    if (memory == nullptr) return core.fault();
  }
  if ((op->aux & kStubFlagsIn) != 0) store(core.vec.operand.data() + kStubFlagsOffset, core.flags.rflags());
  std::uint64_t host_flags = 0;
  if constexpr (!kFloat) {
    host_flags = call<kUnit>(core, op, memory);
  } else if ((core.vec.mxcsr & kMxcsrMasks) == kMxcsrMasks) [[likely]] {
    borrow_mxcsr(core.vec);
    host_flags = call<kUnit>(core, op, memory);
  } else if (!call_unmasked<kUnit>(core, op, memory, host_flags)) {
    return core.fault();
  }
  if ((op->aux & kStubWrites) != 0 && memory == core.vec.operand.data()) {
    if (!core.write_slow(core.address(op), memory, op->bits)) return core.fault();
  }
  if ((op->aux & kStubFlagsOut) != 0) core.flags.set_rflags(host_flags);
  return next(core, op);
}

template <Unit kUnit>
Handler handler(bool floating) {
  return floating ? op_stub<kUnit, true> : op_stub<kUnit, false>;
}

}  // namespace

void use_stub(const StubTraits& traits, Op& op) {
  op.rep = traits.rules;
  if ((op.aux & kStubMmx) != 0) {
    op.fn = traits.xmm ? handler<Unit::kMmxAndSse>(traits.floating) : handler<Unit::kMmx>(traits.floating);
  } else if ((op.aux & kStubVex) != 0) {
    op.fn = handler<Unit::kAvx>(traits.floating);
  } else {
    op.fn = handler<Unit::kSse>(traits.floating);
  }
}

}  // namespace sevisor::emulator
