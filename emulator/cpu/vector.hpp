// Shared by the files that run x87, MMX and SSE instructions.
#pragma once

#include <cstdint>

#include "base/bytes.hpp"
#include "emulator/cpu/core.hpp"
#include "emulator/cpu/decoder.hpp"

namespace sevisor::emulator {

// Op::aux bits of operations that run in a host stub; Op::bits is the memory operand's size in bytes.
enum StubFlag : std::uint8_t {
  kStubMemory = 1,
  kStubReads = 2,
  kStubWrites = 4,
  kStubAligned = 8,    // #GP unless the operand is 16-byte aligned
  kStubFlagsOut = 16,  // RFLAGS of the host after it are the guest's
  kStubFloat = 32,     // uses MXCSR, may raise #XF
  kStubControl = 64,   // x87 instruction that reads or changes the control word itself
  kStubNoWait = 128,   // x87 instruction that does not look at pending exceptions
};
inline constexpr std::size_t kStubMemorySize = 128;

// MXCSR (APM vol. 1, 4.2.2).
inline constexpr std::uint32_t kMxcsrFlags = 0x3f;
inline constexpr unsigned kMxcsrMaskShift = 7;
inline constexpr std::uint32_t kMxcsrValid = 0xffff;

// Fields of the FXSAVE64 image in VectorState::x87 (APM vol. 2, 11.5.5).
inline constexpr std::size_t kFxFcw = 0;
inline constexpr std::size_t kFxFsw = 2;
inline constexpr std::size_t kFxFtw = 4;
inline constexpr std::size_t kFxFop = 6;
inline constexpr std::size_t kFxRip = 8;
inline constexpr std::size_t kFxMxcsr = 24;
inline constexpr std::size_t kFxMxcsrMask = 28;
inline constexpr std::size_t kFxSt = 32;
inline constexpr std::size_t kFxXmm = 160;
inline constexpr std::size_t kFxSize = 512;

// XCR0 (APM vol. 2, 11.5.2).
inline constexpr std::uint64_t kXcr0X87 = 1;
inline constexpr std::uint64_t kXcr0Sse = 2;
inline constexpr std::uint64_t kXcr0Avx = 4;

// #UD or #NM as CR0 and CR4 ask for an SSE instruction; true when it may run.
[[nodiscard]] inline bool sse_available(Core& core) noexcept {
  if ((core.cr0 & (kCr0Em | kCr0Ts)) == 0 && (core.cr4 & kCr4Osfxsr) != 0) [[likely]]
    return true;
  return core.raise((core.cr0 & kCr0Em) != 0 || (core.cr4 & kCr4Osfxsr) == 0 ? kVectorUd : kVectorNm);
}

// Sets FIP, FDP, FOP to 0, which AMD processors leave alone anyway unless an exception is pending: no host address
// shows.
void forget_x87_pointers(VectorState& state) noexcept;

// vector_stub.cpp: writes the host code that runs `insn`, and fills op.imm (the stub), op.aux, op.bits and the memory
// operand. false for a form it cannot express.
[[nodiscard]] bool make_stub(const Insn& insn, Op& op);

// Selectors, each for one group.
[[nodiscard]] bool select_sse(Insn& insn, Op& op);    // exec_sse.cpp
[[nodiscard]] bool select_x87(Insn& insn, Op& op);    // exec_x87.cpp: x87 and MMX
[[nodiscard]] bool select_state(Insn& insn, Op& op);  // exec_xsave.cpp: FXSAVE, XSAVE families, LDMXCSR, STMXCSR

}  // namespace sevisor::emulator
