// Makes a random instruction's memory operands and branch target meet the pages that exist.
#pragma once

#include <string>

#include "tests/cpu_diff/encodings.hpp"

namespace sevisor::cpu_diff {

// Random registers, status flags, DF and data. The vector state is initial_registers()'s; a test of vector instructions
// fills it itself.
Machine random_machine(Random& random);

// Changes registers, data, and the displacement or branch distance in the encoding. Most memory operands then lie in
// the data pages, some across the border of the two, few reach out of them, so that the access faults. Operands of the
// right size are aligned in two cases out of three. False: such an operand cannot be aimed.
bool aim(Random& random, Mode mode, Encoding& encoding, Machine& machine);

// The status flags that the manuals leave undefined in `before` (counts of shifts matter).
[[nodiscard]] std::uint64_t undefined_flags(const Encoding& encoding, const Machine& before);

// What differs, or nothing: registers, flags but for `ignored_flags`, data, address, exception.
[[nodiscard]] std::string difference(const Machine& native, const Machine& engine, std::uint64_t ignored_flags);

// For failure messages: bytes, disassembly and registers.
[[nodiscard]] std::string describe(Mode mode, const Encoding& encoding, const Machine& before);

}  // namespace sevisor::cpu_diff
