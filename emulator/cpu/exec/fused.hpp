// A peephole of the decoder.
#pragma once

#include "emulator/cpu/code/decoder.hpp"

namespace sevisor::emulator {

// `branch`, which is about to follow `compare` in the block, is a Jcc: if `compare` is a CMP or TEST, it becomes a
// handler that does both. Outside 64-bit mode nothing happens.
void fuse_compare_branch(const Insn& branch, Op& compare);

}  // namespace sevisor::emulator
