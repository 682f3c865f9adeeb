// What a comparison of integer instructions must know: which can be compared, and where processors differ.
#pragma once

#include "tests/cpu_diff/encodings.hpp"

namespace sevisor::cpu_diff {

// An instruction of exec_integer*, exec_shift, exec_bits*, exec_multiply*, exec_string or exec_control that the host
// has too and that may run in this process, with this engine's flat segments.
[[nodiscard]] bool integer_wanted(const Encoding& e);

// Registers and memory that the manuals leave undefined after this instruction.
[[nodiscard]] bool integer_result_undefined(const Encoding& e, const Machine& before);

// Takes what processors do differently from each other when an instruction faults out of the comparison.
void forgive_integer(const Encoding& e, const Machine& native, Machine& engine);

// Outside 64-bit mode: registers are 32 bits wide, and there are eight of them.
void narrow(Mode mode, Machine& m);

}  // namespace sevisor::cpu_diff
