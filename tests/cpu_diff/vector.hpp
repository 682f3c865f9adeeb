// What a comparison of x87, MMX, SSE and AVX instructions must know: which can be compared, and where processors
// differ.
#pragma once

#include "tests/cpu_diff/encodings.hpp"

namespace sevisor::cpu_diff {

// An instruction with vector or x87 state that the host has too, and that CPL 3 may execute.
[[nodiscard]] bool vector_wanted(const Encoding& e);

// Takes what processors do differently from each other out of the comparison. `before`: the state both began with.
void forgive_vector(Mode mode, const Encoding& e, const Machine& before, Machine& native, Machine& engine);

}  // namespace sevisor::cpu_diff
