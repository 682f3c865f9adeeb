// Shared by the files that run x87, MMX, SSE and AVX instructions.
#pragma once

#include <cstdint>
#include <cstring>

#include "base/bytes.hpp"
#include "emulator/cpu/code/decoder.hpp"
#include "emulator/cpu/core.hpp"
#include "emulator/cpu/exec/host_stubs.hpp"
#include "emulator/cpu/state/host_unit.hpp"

// The stubs are no C++ functions: they carry no type for -fsanitize=function to check.
#if defined(__clang__)
#define SEVISOR_CALLS_STUB __attribute__((no_sanitize("function")))
#else
#define SEVISOR_CALLS_STUB
#endif

namespace sevisor::emulator {

// Op::aux bits of operations that run in a host stub; Op::imm is the stub, Op::bits the memory operand's size in bytes.
enum StubFlag : std::uint8_t {
  kStubMemory = 1,
  kStubReads = 2,
  kStubWrites = 4,
  kStubAligned = 8,    // #GP unless the operand is aligned to its size
  kStubFlagsOut = 16,  // RFLAGS of the host after it are the guest's
  kStubFlagsIn = 32,   // wants the guest's RFLAGS at the end of the operand
  kStubMmx = 64,       // MMX registers: runs under x87's rules too
  kStubVex = 128,      // VEX-encoded: runs under AVX's rules
};
// Op::rep bits of the same.
enum StubRule : std::uint8_t {
  kStubIgnoresFtz = 1,
  kStubStoresFirst = 2,  // the page of a store is looked at before its numbers
  kStubMayMisalign = 4,  // the guest's operand may be misaligned; the host's processor may want it aligned
};
inline constexpr std::size_t kStubFlagsOffset = 120;  // in VectorState::operand

// MXCSR (APM vol. 1, 4.2.2); more of it in host_unit.hpp.
inline constexpr unsigned kMxcsrMaskShift = 7;
inline constexpr std::uint32_t kMxcsrFtz = 0x8000;
inline constexpr std::uint32_t kMxcsrMisaligned = 0x20000;  // MM: 16-byte operands need no alignment
inline constexpr std::uint32_t kMxcsrValid = 0xffff | kMxcsrMisaligned;

// #UD or #NM as the control registers ask for; true when the instruction may run.
[[nodiscard]] bool refuse_sse(Core& core) noexcept;
[[nodiscard]] bool refuse_avx(Core& core) noexcept;
[[nodiscard]] inline bool sse_available(Core& core) noexcept { return core.sse_ready || refuse_sse(core); }
[[nodiscard]] inline bool avx_available(Core& core) noexcept { return core.avx_ready || refuse_avx(core); }

// #GP(0) if `va` is not aligned to `size`, a power of two.
[[nodiscard]] inline bool vector_aligned(Core& core, std::uint64_t va, std::uint64_t size) noexcept {
  return (va & (size - 1)) == 0 || core.raise(kVectorGp, 0);
}

SEVISOR_CALLS_STUB inline std::uint64_t call_stub(Core& core, const Op* op, std::byte* memory) {
  HostStub stub;
  static_assert(sizeof stub == sizeof op->imm);
  std::memcpy(&stub, &op->imm, sizeof stub);
  return stub(&core.vec, memory, core.gpr.data());
}

// --- exec/x87.cpp

[[nodiscard]] inline std::uint16_t x87_field(const Core& core, std::size_t offset) {
  return load<std::uint16_t>(core.vec.x87.data() + offset);
}
inline void set_x87_field(Core& core, std::size_t offset, unsigned value) {
  store(core.vec.x87.data() + offset, static_cast<std::uint16_t>(value));
}
[[nodiscard]] inline bool x87_pending(const Core& core) { return x87_pending(core.vec); }
// Runs a stub that uses x87 or MMX registers. They stay in the host's unit unless an exception is unmasked, which would
// strike at the host's next instruction that looks.
inline std::uint64_t call_x87_stub(Core& core, const Op* op, std::byte* memory) {
  borrow_x87(core.vec);
  const std::uint64_t host_flags = call_stub(core, op, memory);
  if (!x87_all_masked(core.vec)) [[unlikely]]
    return_x87(core.vec);
  return host_flags;
}

// --- vector_stub.cpp

// What make_stub() found about the instruction.
struct StubTraits {
  bool floating = false;   // uses MXCSR, may raise #XF
  bool xmm = false;        // names an XMM register
  std::uint8_t rules = 0;  // StubRule
};
// Writes the host code that runs `insn`, and fills op.imm (the stub), op.aux, op.bits and the memory operand. false for
// a form it cannot express.
[[nodiscard]] bool make_stub(const Insn& insn, Op& op, StubTraits& traits);

// --- vector_run.cpp: the handlers of stubs with SSE, AVX or MMX instructions.

void use_stub(const StubTraits& traits, Op& op);

// --- Selectors, each for one group.

[[nodiscard]] bool select_sse(Insn& insn, Op& op);          // exec/sse.cpp: SSE and MMX
[[nodiscard]] bool select_avx(Insn& insn, Op& op);          // exec/avx.cpp
[[nodiscard]] bool select_sse4a(Insn& insn, Op& op);        // exec/sse4a.cpp
[[nodiscard]] bool select_x87(Insn& insn, Op& op);          // exec/x87.cpp
[[nodiscard]] bool select_x87_control(Insn& insn, Op& op);  // exec/x87_control.cpp; declines the others
[[nodiscard]] bool select_state(Insn& insn, Op& op);        // exec/xsave.cpp: FXSAVE, XSAVE families, LDMXCSR, STMXCSR

// Number of the XMM or YMM register that operand `n` is.
[[nodiscard]] inline std::uint8_t vector_number(const Insn& insn, unsigned n) {
  return static_cast<std::uint8_t>(ZydisRegisterGetId(insn.op(n).reg.value));
}

}  // namespace sevisor::emulator
