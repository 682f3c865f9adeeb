// Where direct branches go.
#pragma once

#include "emulator/cpu/exec/forms.hpp"

namespace sevisor::emulator {

// Direct branches keep their target in op->imm, relative to the block, and its width in op->address_mask.
inline std::uint64_t target_of(const Core& core, const Op* op) noexcept {
  return (core.gpr[kRegBlock] + op->imm) & op->address_mask;
}

// Not taken, the op_continue that follows lends its link.
template <bool k64>
const Op* fall_through(Core& core, const Op* op) {
  const Op* next = op + 1;
  return core.jump_linked(next, k64 ? core.rip_of(op) + op->length : core.rip_after(op));
}

}  // namespace sevisor::emulator
