// x87, MMX, SSE and AVX state of test cases: random contents, and what must agree afterwards.
#pragma once

#include <string>

#include "tests/cpu_diff/encodings.hpp"

namespace sevisor::cpu_diff {

// Random registers full of the values at which floating point goes wrong, random control and status words, and the
// like in the data pages. To be called before aim().
void randomize_vector(Random& random, Machine& machine);
// After aim(): a special value as the memory operand, and whatever the instruction demands of its operands.
void prepare_operand(Random& random, const Encoding& encoding, Machine& machine);
// Linear address of an operand with the registers as they are; 0 if it has none.
[[nodiscard]] std::uint64_t operand_address(const Encoding& encoding, const ZydisDecodedOperand& operand,
                                            const Machine& machine);

// FXSAVE, XSAVE and their like: what they write begins with FXSAVE's image.
[[nodiscard]] bool saves_image(const Encoding& encoding);

// What differs in the vector state, or nothing.
[[nodiscard]] std::string vector_difference(Mode mode, const Machine& native, const Machine& engine);
[[nodiscard]] std::string describe_vector(const Machine& machine);

}  // namespace sevisor::cpu_diff
