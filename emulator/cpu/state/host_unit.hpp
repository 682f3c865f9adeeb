// The host's MXCSR and x87 registers while a guest runs. Loading and storing them costs more than most of the
// instructions that want them do (FXRSTOR and FXSAVE around each x87 instruction made a loop of them fifteen times
// slower), so they stay the guest's, collecting its results and flags, until something else needs to know or use them:
// the guest's state is looked at, the host's own code may compute, or the run ends.
#pragma once

#include <array>
#include <cstdint>
#include <cstring>
#include <emmintrin.h>

#include "base/bytes.hpp"
#include "emulator/cpu/state/registers.hpp"

namespace sevisor::emulator {

inline constexpr std::uint32_t kMxcsrReset = 0x1f80;  // what compiled code expects
inline constexpr std::uint32_t kMxcsrFlags = 0x3f;
inline constexpr std::uint32_t kMxcsrMasks = 0x1f80;
inline constexpr std::uint32_t kMxcsrControl = 0xe040;  // RC, FTZ, DAZ

// Fields of the FXSAVE64 image in VectorState::x87 (APM vol. 2, 11.5.5).
inline constexpr std::size_t kFxFcw = 0;
inline constexpr std::size_t kFxFsw = 2;
inline constexpr std::size_t kFxFtw = 4;
inline constexpr std::size_t kFxFop = 6;
inline constexpr std::size_t kFxRip = 8;
inline constexpr std::size_t kFxDp = 16;
inline constexpr std::size_t kFxMxcsr = 24;
inline constexpr std::size_t kFxMxcsrMask = 28;
inline constexpr std::size_t kFxSt = 32;
inline constexpr std::size_t kFxXmm = 160;
inline constexpr std::size_t kFxSize = 512;

inline constexpr unsigned kX87Exceptions = 0x3f;  // flags in FSW, masks in FCW

// Before a guest's instruction computes: rounding and flushing are the guest's, everything is masked.
inline void borrow_mxcsr(VectorState& state) noexcept {
  const std::uint32_t wanted = (state.mxcsr & kMxcsrControl) | kMxcsrMasks;
  if (state.host_mxcsr == wanted) [[likely]]
    return;
  if (state.host_mxcsr != 0) state.mxcsr |= _mm_getcsr() & kMxcsrFlags;
  _mm_setcsr(wanted);
  state.host_mxcsr = wanted;
}

// Before an x87 or MMX instruction: the host's registers are the guest's.
inline void borrow_x87(VectorState& state) noexcept {
  if (state.host_x87) [[likely]]
    return;
  // FXRSTOR loads MXCSR as well, which stays as it is.
  store(state.x87.data() + kFxMxcsr, static_cast<std::uint32_t>(_mm_getcsr()));
  asm volatile("fxrstor64 %0"
               :
               : "m"(state.x87)
               : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11",
                 "xmm12", "xmm13", "xmm14", "xmm15");
  state.host_x87 = true;
}

// Puts the guest's x87 registers into their image, and gives the host its own back. The pointers in the image are the
// guest's already, those of the host's registers are of host code.
inline void return_x87(VectorState& state) noexcept {
  if (!state.host_x87) [[likely]]
    return;
  std::array<std::byte, kFxMxcsr - kFxFop> pointers;
  std::memcpy(pointers.data(), state.x87.data() + kFxFop, pointers.size());
  asm volatile("fxsave64 %0\n\tfninit" : "+m"(state.x87));  // compiled code expects an empty stack
  std::memcpy(state.x87.data() + kFxFop, pointers.data(), pointers.size());
  state.host_x87 = false;
}

// FCW in the image is always the guest's: it changes by instructions that are not run in host code.
inline bool x87_all_masked(const VectorState& state) noexcept {
  return (load<std::uint16_t>(state.x87.data() + kFxFcw) & kX87Exceptions) == kX87Exceptions;
}
// After a change of FCW in the image that masks all, while the host has the rest.
inline void load_host_fcw(const VectorState& state) noexcept {
  const auto fcw = load<std::uint16_t>(state.x87.data() + kFxFcw);
  asm volatile("fldcw %0" : : "m"(fcw));
}
inline std::uint16_t x87_status(const VectorState& state) noexcept {
  std::uint16_t fsw = load<std::uint16_t>(state.x87.data() + kFxFsw);
  if (state.host_x87) asm volatile("fnstsw %0" : "=a"(fsw));
  return fsw;
}

// An unmasked exception waits for the next instruction that looks. FSW in the image may be old only while all are
// masked.
inline bool x87_pending(const VectorState& state) noexcept {
  return (load<std::uint16_t>(state.x87.data() + kFxFsw) & ~load<std::uint16_t>(state.x87.data() + kFxFcw) &
          kX87Exceptions) != 0;
}

// Opcode and addresses of the last x87 instruction.
struct X87Pointers {
  std::uint16_t opcode = 0;
  std::uint64_t instruction = 0;
  std::uint64_t data = 0;
  std::uint16_t cs = 0;
  std::uint16_t ds = 0;
};
// As FNSTENV and FNSAVE store them.
inline X87Pointers last_pointers(const VectorState& state) noexcept {
  constexpr std::uint16_t kOpcode = 0x7ff;
  const std::byte* image = state.x87.data();
  return {.opcode = static_cast<std::uint16_t>(load<std::uint16_t>(image + kFxFop) & kOpcode),
          .instruction = load<std::uint64_t>(image + kFxRip),
          .data = load<std::uint64_t>(image + kFxDp),
          .cs = state.x87_cs,
          .ds = state.x87_ds};
}
// As FXSAVE and XSAVE and their like store them: zero unless an exception is pending (APM vol. 2, 11.4.4; CPUID
// Fn8000_0008 EBX[2] says that they are always written). FNSTENV and an FLDCW that unmasks an older flag still show
// them.
inline X87Pointers pointers_of_error(const VectorState& state) noexcept {
  return x87_pending(state) ? last_pointers(state) : X87Pointers{};
}

// Everything back: the flags raised since go into the guest's MXCSR, its x87 registers into their image.
inline void return_units(VectorState& state) noexcept {
  return_x87(state);
  if (state.host_mxcsr == 0) [[likely]]
    return;
  state.mxcsr |= _mm_getcsr() & kMxcsrFlags;
  _mm_setcsr(kMxcsrReset);
  state.host_mxcsr = 0;
}

}  // namespace sevisor::emulator
