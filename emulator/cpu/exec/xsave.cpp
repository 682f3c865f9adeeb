// Saving and restoring vector state: FXSAVE, FXRSTOR, XSAVE, XSAVEOPT, XSAVEC, XSAVES, XRSTOR, XRSTORS, and MXCSR
// alone. Layout: APM vol. 2, 11.5; the components are x87 (0), SSE (1) and AVX (2).
#include <algorithm>
#include <array>
#include <cstring>

#include "emulator/cpu/exec/vector.hpp"
#include "emulator/cpu/system.hpp"

namespace sevisor::emulator {

namespace {

constexpr std::size_t kHeader = 512;  // XSAVE header: XSTATE_BV, XCOMP_BV
constexpr std::size_t kHeaderSize = 64;
constexpr std::size_t kAvxOffset = 576;  // standard format; in the compacted one the first extended component too
constexpr std::size_t kAvxSize = 256;
constexpr std::size_t kAreaSize = kAvxOffset + kAvxSize;
constexpr std::uint64_t kCompacted = std::uint64_t{1} << 63;
constexpr std::uint16_t kFcwReset = 0x037f;

using Area = std::array<std::byte, kAreaSize>;

// Op::aux bits.
constexpr std::uint8_t kWide = 1;  // FXSAVE64, XSAVE64: the x87 pointers have 64 bits
constexpr std::uint8_t kCompactForm = 2;
constexpr std::uint8_t kSupervisor = 4;  // XSAVES, XRSTORS
constexpr std::uint8_t kOptimise = 8;    // XSAVEOPT, XSAVEC, XSAVES: components in their initial state are not written

bool xsave_available(Core& core) {
  if ((core.cr4 & kCr4Osxsave) == 0) return core.raise(kVectorUd);
  if ((core.cr0 & kCr0Ts) != 0) return core.raise(kVectorNm);
  return true;
}

// An address that is not even canonical is #SS if it is the stack's.
bool area_aligned(Core& core, std::uint64_t va, std::uint64_t alignment) {
  if ((va & (alignment - 1)) == 0) return true;
  core.fault_info = Fault{.vector = kVectorGp, .has_error = true, .non_canonical = core.long_mode && !canonical(va)};
  return false;
}

constexpr std::size_t kSelector = 4;  // from the offset before it, where pointers have 32 bits

void put_x87(const VectorState& v, std::byte* area, bool wide) {
  const X87Pointers last = pointers_of_error(v);
  std::memcpy(area, v.x87.data(), kFxFop);
  store(area + kFxFop, last.opcode);
  store(area + kFxRip, last.instruction);
  store(area + kFxDp, last.data);
  if (!wide) {
    store(area + kFxRip + kSelector, std::uint32_t{last.cs});
    store(area + kFxDp + kSelector, std::uint32_t{last.ds});
  }
  for (unsigned i = 0; i < 8; ++i) {
    std::memset(area + kFxSt + 16 * i, 0, 16);
    std::memcpy(area + kFxSt + 16 * i, v.x87.data() + kFxSt + 16 * i, 10);
  }
}
void put_mxcsr(const VectorState& v, std::byte* area) {
  store(area + kFxMxcsr, v.mxcsr);
  store(area + kFxMxcsrMask, kMxcsrValid);
}
void put_xmm(const VectorState& v, std::byte* area, unsigned count) {
  for (unsigned i = 0; i < count; ++i) std::memcpy(area + kFxXmm + 16 * i, v.ymm[i].data(), 16);
}
void put_avx(const VectorState& v, std::byte* area, unsigned count) {
  for (unsigned i = 0; i < count; ++i) std::memcpy(area + 16 * i, v.ymm[i].data() + 16, 16);
}

// x87's pointers have the bits of a linear address.
std::uint64_t kept_of_pointer(std::uint64_t value) {
  constexpr unsigned kAbove = 16;
  return static_cast<std::uint64_t>(static_cast<std::int64_t>(value << kAbove) >> kAbove);
}

void take_x87(VectorState& v, const std::byte* area, bool wide) {
  constexpr unsigned kFcwWritable = 0x1f3f;
  constexpr unsigned kFcwFixed = 0x40;
  constexpr unsigned kSummary = 0x8080;  // ES and B follow from flags and masks
  constexpr unsigned kExceptions = 0x3f;
  const unsigned fcw = (load<std::uint16_t>(area + kFxFcw) & kFcwWritable) | kFcwFixed;
  const unsigned fsw = load<std::uint16_t>(area + kFxFsw) & ~kSummary;
  store(v.x87.data() + kFxFcw, static_cast<std::uint16_t>(fcw));
  store(v.x87.data() + kFxFsw, static_cast<std::uint16_t>(fsw | ((fsw & ~fcw & kExceptions) != 0 ? kSummary : 0)));
  store(v.x87.data() + kFxFtw, std::uint16_t{load<std::uint8_t>(area + kFxFtw)});
  store(v.x87.data() + kFxFop, static_cast<std::uint16_t>(load<std::uint16_t>(area + kFxFop) & 0x7ff));
  const auto pointer = [&](std::size_t at) {
    return wide ? kept_of_pointer(load<std::uint64_t>(area + at)) : load<std::uint32_t>(area + at);
  };
  store(v.x87.data() + kFxRip, pointer(kFxRip));
  store(v.x87.data() + kFxDp, pointer(kFxDp));
  v.x87_cs = wide ? 0 : load<std::uint16_t>(area + kFxRip + kSelector);
  v.x87_ds = wide ? 0 : load<std::uint16_t>(area + kFxDp + kSelector);
  for (unsigned i = 0; i < 8; ++i) std::memcpy(v.x87.data() + kFxSt + 16 * i, area + kFxSt + 16 * i, 10);
}
void init_x87(VectorState& v) {
  std::memset(v.x87.data(), 0, kFxMxcsr);
  std::memset(v.x87.data() + kFxSt, 0, 128);
  store(v.x87.data() + kFxFcw, kFcwReset);
  v.x87_cs = v.x87_ds = 0;
}
void take_xmm(VectorState& v, const std::byte* area, unsigned count) {
  for (unsigned i = 0; i < count; ++i) std::memcpy(v.ymm[i].data(), area + kFxXmm + 16 * i, 16);
}
void init_xmm(VectorState& v, unsigned count) {
  for (unsigned i = 0; i < count; ++i) std::memset(v.ymm[i].data(), 0, 16);
}
void take_avx(VectorState& v, const std::byte* area, unsigned count) {
  for (unsigned i = 0; i < count; ++i) std::memcpy(v.ymm[i].data() + 16, area + 16 * i, 16);
}
void init_avx(VectorState& v, unsigned count) {
  for (unsigned i = 0; i < count; ++i) std::memset(v.ymm[i].data() + 16, 0, 16);
}

// Registers 8 to 15 exist in 64-bit mode only.
unsigned vector_count(const Core& core) { return core.code64 ? 16 : 8; }

bool all_zero(const std::byte* from, std::size_t size) {
  return std::all_of(from, from + size, [](std::byte b) { return b == std::byte{0}; });
}

// Components that are not in their initial state (XINUSE).
std::uint64_t in_use(const VectorState& v) {
  VectorState fresh;
  init_x87(fresh);
  std::uint64_t used = 0;
  const bool x87_initial = std::memcmp(fresh.x87.data(), v.x87.data(), kFxMxcsr) == 0 &&
                           std::memcmp(fresh.x87.data() + kFxSt, v.x87.data() + kFxSt, 128) == 0;
  if (!x87_initial) used |= kXcr0X87;
  for (const auto& r : v.ymm) {
    if (!all_zero(r.data(), 16)) used |= kXcr0Sse;
    if (!all_zero(r.data() + 16, 16)) used |= kXcr0Avx;
  }
  return used;
}

bool is_wide(const Op* op) { return (op->aux & kWide) != 0; }

const Op* op_fxsave(Core& core, const Op* op) {
  return_units(core.vec);
  if ((core.cr0 & (kCr0Em | kCr0Ts)) != 0) return core.fault(kVectorNm);
  const std::uint64_t va = core.address(op);
  if (!area_aligned(core, va, 16)) return core.fault();
  std::array<std::byte, kFxSize> area;
  // The last 96 bytes are the program's own; FFXSR leaves out the XMM registers at CPL 0.
  if (!core.probe_write(va, kFxSize) || !core.read_slow(va, area.data(), area.size())) return core.fault();
  std::memset(area.data(), 0, kFxXmm);
  put_x87(core.vec, area.data(), is_wide(op));
  put_mxcsr(core.vec, area.data());
  const bool fast = (core.efer & kEferFfxsr) != 0 && core.cpl == 0 && core.code64;
  if (!fast) put_xmm(core.vec, area.data(), vector_count(core));
  if (!core.write_slow(va, area.data(), area.size())) return core.fault();
  return op + 1;
}

const Op* op_fxrstor(Core& core, const Op* op) {
  return_units(core.vec);
  if ((core.cr0 & (kCr0Em | kCr0Ts)) != 0) return core.fault(kVectorNm);
  const std::uint64_t va = core.address(op);
  if (!area_aligned(core, va, 16)) return core.fault();
  std::array<std::byte, kFxSize> area;
  if (!core.read_slow(va, area.data(), area.size())) return core.fault();
  const auto mxcsr = load<std::uint32_t>(area.data() + kFxMxcsr);
  if ((mxcsr & ~kMxcsrValid) != 0) return core.fault(kVectorGp, 0);
  take_x87(core.vec, area.data(), is_wide(op));
  core.vec.mxcsr = mxcsr;
  const bool fast = (core.efer & kEferFfxsr) != 0 && core.cpl == 0 && core.code64;
  if (!fast) take_xmm(core.vec, area.data(), vector_count(core));
  return op + 1;
}

std::uint64_t requested(const Core& core, const Op* op) {
  const std::uint64_t asked = core.gpr[2] << 32 | (core.gpr[0] & 0xffffffff);
  const std::uint64_t enabled = core.vec.xcr0 | ((op->aux & kSupervisor) != 0 ? core.msr.xss : 0);
  return asked & enabled;
}

const Op* op_xsave(Core& core, const Op* op) {
  return_units(core.vec);
  if (!xsave_available(core)) return core.fault();
  if ((op->aux & kSupervisor) != 0 && core.cpl != 0) return core.fault(kVectorGp, 0);
  const std::uint64_t va = core.address(op);
  if (!area_aligned(core, va, 64)) return core.fault();
  const std::uint64_t rfbm = requested(core, op);
  const bool compact = (op->aux & kCompactForm) != 0;
  std::uint64_t used = in_use(core.vec);
  // In the compacted form MXCSR is a part of the SSE component.
  if (compact && core.vec.mxcsr != kMxcsrReset) used |= kXcr0Sse;
  // The optimising forms leave a component alone that is in its initial state.
  const std::uint64_t write = (op->aux & kOptimise) != 0 ? rfbm & used : rfbm;
  const unsigned count = vector_count(core);
  const std::size_t size = (write & kXcr0Avx) != 0 ? kAreaSize : kHeader + kHeaderSize;

  Area area;
  if (!core.probe_write(va, size) || !core.read_slow(va, area.data(), size)) return core.fault();
  if ((write & kXcr0X87) != 0) put_x87(core.vec, area.data(), is_wide(op));
  if ((write & kXcr0Sse) != 0) put_xmm(core.vec, area.data(), count);
  if ((write & kXcr0Avx) != 0) put_avx(core.vec, area.data() + kAvxOffset, count);
  if (compact) {
    if ((rfbm & used & kXcr0Sse) != 0) put_mxcsr(core.vec, area.data());
    store(area.data() + kHeader, rfbm & used);
    store(area.data() + kHeader + 8, kCompacted | rfbm);
  } else {
    if ((rfbm & kXcr0Ymm) != 0) put_mxcsr(core.vec, area.data());
    const auto old_bv = load<std::uint64_t>(area.data() + kHeader);
    store(area.data() + kHeader, (old_bv & ~rfbm) | (rfbm & used));
  }
  if (!core.write_slow(va, area.data(), size)) return core.fault();
  return op + 1;
}

// The header's rules; false with #GP noted.
bool header_valid(Core& core, const Area& area, bool supervisor) {
  const auto bv = load<std::uint64_t>(area.data() + kHeader);
  const auto comp = load<std::uint64_t>(area.data() + kHeader + 8);
  const std::uint64_t enabled = core.vec.xcr0 | (supervisor ? core.msr.xss : 0);
  const bool compact = (comp & kCompacted) != 0;
  if (supervisor && !compact) return core.raise(kVectorGp, 0);
  if (compact) {
    if ((comp & ~kCompacted & ~enabled) != 0 || (bv & ~(comp & ~kCompacted)) != 0) return core.raise(kVectorGp, 0);
    if (!all_zero(area.data() + kHeader + 16, kHeaderSize - 16)) return core.raise(kVectorGp, 0);
  } else if ((bv & ~core.vec.xcr0) != 0 || !all_zero(area.data() + kHeader + 8, 16)) {
    return core.raise(kVectorGp, 0);
  }
  return true;
}

const Op* op_xrstor(Core& core, const Op* op) {
  return_units(core.vec);
  if (!xsave_available(core)) return core.fault();
  const bool supervisor = (op->aux & kSupervisor) != 0;
  if (supervisor && core.cpl != 0) return core.fault(kVectorGp, 0);
  const std::uint64_t va = core.address(op);
  if (!area_aligned(core, va, 64)) return core.fault();
  const std::uint64_t rfbm = requested(core, op);
  Area area;
  if (!core.read_slow(va, area.data(), kHeader + kHeaderSize)) return core.fault();
  if (!header_valid(core, area, supervisor)) return core.fault();
  const auto bv = load<std::uint64_t>(area.data() + kHeader);
  const bool compact = (load<std::uint64_t>(area.data() + kHeader + 8) & kCompacted) != 0;
  const std::uint64_t loaded = rfbm & bv;  // the others of `rfbm` get their initial state
  if ((loaded & kXcr0Avx) != 0 && !core.read_slow(va + kAvxOffset, area.data() + kAvxOffset, kAvxSize)) {
    return core.fault();
  }
  const bool loads_mxcsr = compact ? (loaded & kXcr0Sse) != 0 : (rfbm & kXcr0Ymm) != 0;
  const auto mxcsr = load<std::uint32_t>(area.data() + kFxMxcsr);
  if (loads_mxcsr && (mxcsr & ~kMxcsrValid) != 0) return core.fault(kVectorGp, 0);

  VectorState& v = core.vec;
  const unsigned count = vector_count(core);
  if (loads_mxcsr) {
    v.mxcsr = mxcsr;
  } else if (compact && (rfbm & kXcr0Sse) != 0) {
    v.mxcsr = kMxcsrReset;
  }
  if ((loaded & kXcr0X87) != 0) {
    take_x87(v, area.data(), is_wide(op));
  } else if ((rfbm & kXcr0X87) != 0) {
    init_x87(v);
  }
  if ((loaded & kXcr0Sse) != 0) {
    take_xmm(v, area.data(), count);
  } else if ((rfbm & kXcr0Sse) != 0) {
    init_xmm(v, count);
  }
  if ((loaded & kXcr0Avx) != 0) {
    take_avx(v, area.data() + kAvxOffset, count);
  } else if ((rfbm & kXcr0Avx) != 0) {
    init_avx(v, count);
  }
  return op + 1;
}

// kVex: VLDMXCSR, VSTMXCSR.
template <bool kVex>
const Op* op_ldmxcsr(Core& core, const Op* op) {
  return_units(core.vec);
  if (!(kVex ? avx_available(core) : sse_available(core))) return core.fault();
  std::uint32_t value = 0;
  if (!core.read(core.address(op), value)) return core.fault();
  if ((value & ~kMxcsrValid) != 0) return core.fault(kVectorGp, 0);
  core.vec.mxcsr = value;
  return op + 1;
}

template <bool kVex>
const Op* op_stmxcsr(Core& core, const Op* op) {
  return_units(core.vec);
  if (!(kVex ? avx_available(core) : sse_available(core))) return core.fault();
  if (!core.write(core.address(op), core.vec.mxcsr)) return core.fault();
  return op + 1;
}

struct StateForm {
  Handler fn;
  ZydisMnemonic mnemonic;
  std::uint8_t aux;
};
constexpr StateForm kForms[] = {
    {op_fxsave, ZYDIS_MNEMONIC_FXSAVE, 0},
    {op_fxsave, ZYDIS_MNEMONIC_FXSAVE64, kWide},
    {op_fxrstor, ZYDIS_MNEMONIC_FXRSTOR, 0},
    {op_fxrstor, ZYDIS_MNEMONIC_FXRSTOR64, kWide},
    {op_xsave, ZYDIS_MNEMONIC_XSAVE, 0},
    {op_xsave, ZYDIS_MNEMONIC_XSAVE64, kWide},
    {op_xsave, ZYDIS_MNEMONIC_XSAVEOPT, kOptimise},
    {op_xsave, ZYDIS_MNEMONIC_XSAVEOPT64, kWide | kOptimise},
    {op_xsave, ZYDIS_MNEMONIC_XSAVEC, kOptimise | kCompactForm},
    {op_xsave, ZYDIS_MNEMONIC_XSAVEC64, kWide | kOptimise | kCompactForm},
    {op_xsave, ZYDIS_MNEMONIC_XSAVES, kOptimise | kCompactForm | kSupervisor},
    {op_xsave, ZYDIS_MNEMONIC_XSAVES64, kWide | kOptimise | kCompactForm | kSupervisor},
    {op_xrstor, ZYDIS_MNEMONIC_XRSTOR, 0},
    {op_xrstor, ZYDIS_MNEMONIC_XRSTOR64, kWide},
    {op_xrstor, ZYDIS_MNEMONIC_XRSTORS, kSupervisor},
    {op_xrstor, ZYDIS_MNEMONIC_XRSTORS64, kWide | kSupervisor},
    {op_ldmxcsr<false>, ZYDIS_MNEMONIC_LDMXCSR, 0},
    {op_stmxcsr<false>, ZYDIS_MNEMONIC_STMXCSR, 0},
    {op_ldmxcsr<true>, ZYDIS_MNEMONIC_VLDMXCSR, 0},
    {op_stmxcsr<true>, ZYDIS_MNEMONIC_VSTMXCSR, 0},
};

}  // namespace

bool select_state(Insn& insn, Op& op) {
  const auto* form = std::find_if(std::begin(kForms), std::end(kForms),
                                  [&](const StateForm& f) { return f.mnemonic == insn.info.mnemonic; });
  if (form == std::end(kForms)) return false;
  for (unsigned n = 0; n < insn.info.operand_count; ++n) {
    if (insn.is_mem(n) && insn.op(n).visibility == ZYDIS_OPERAND_VISIBILITY_EXPLICIT) set_memory(insn, insn.op(n), op);
  }
  op.fn = form->fn;
  op.aux = form->aux;
  return true;
}

}  // namespace sevisor::emulator
