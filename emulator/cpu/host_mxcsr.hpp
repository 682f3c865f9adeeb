// The host's MXCSR while a guest runs. Loading and storing it costs more than most floating-point instructions do, so
// it stays as the guest's instructions want it, collecting their flags, until something else needs to know or use it:
// the guest's MXCSR is looked at, the host's own code may compute, or the run ends.
#pragma once

#include <cstdint>
#include <emmintrin.h>

#include "emulator/cpu/registers.hpp"

namespace sevisor::emulator {

inline constexpr std::uint32_t kMxcsrReset = 0x1f80;  // what compiled code expects
inline constexpr std::uint32_t kMxcsrFlags = 0x3f;
inline constexpr std::uint32_t kMxcsrMasks = 0x1f80;
inline constexpr std::uint32_t kMxcsrControl = 0xe040;  // RC, FTZ, DAZ

// Before a guest's instruction computes: rounding and flushing are the guest's, everything is masked.
inline void borrow_mxcsr(VectorState& state) noexcept {
  const std::uint32_t wanted = (state.mxcsr & kMxcsrControl) | kMxcsrMasks;
  if (state.host_mxcsr == wanted) [[likely]]
    return;
  if (state.host_mxcsr != 0) state.mxcsr |= _mm_getcsr() & kMxcsrFlags;
  _mm_setcsr(wanted);
  state.host_mxcsr = wanted;
}

// Puts the flags raised since into the guest's MXCSR, and gives the host its own back.
inline void return_mxcsr(VectorState& state) noexcept {
  if (state.host_mxcsr == 0) [[likely]]
    return;
  state.mxcsr |= _mm_getcsr() & kMxcsrFlags;
  _mm_setcsr(kMxcsrReset);
  state.host_mxcsr = 0;
}

}  // namespace sevisor::emulator
