// VMASKMOVPS, VMASKMOVPD, VPMASKMOVD, VPMASKMOVQ and the gathers: only elements chosen by a mask touch memory.
#pragma once

#include "emulator/cpu/code/decoder.hpp"

namespace sevisor::emulator {

// Declines other instructions.
[[nodiscard]] bool select_avx_masked(Insn& insn, Op& op);

}  // namespace sevisor::emulator
