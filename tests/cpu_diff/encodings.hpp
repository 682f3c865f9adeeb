// Random instructions of a chosen set.
#pragma once

#include <Zydis/Zydis.h>
#include <array>
#include <cstdint>
#include <functional>
#include <span>

#include "tests/cpu_diff/machine.hpp"
#include "tests/cpu_diff/random.hpp"

namespace sevisor::cpu_diff {

struct Encoding {
  std::array<std::uint8_t, ZYDIS_MAX_INSTRUCTION_LENGTH> bytes{};
  ZydisDecodedInstruction info{};
  std::array<ZydisDecodedOperand, ZYDIS_MAX_OPERAND_COUNT> operands{};

  [[nodiscard]] std::span<const std::uint8_t> code() const { return std::span(bytes).first(info.length); }
};

// Random bytes (prefixes, opcode of any map, operands) until they decode to an instruction that `wanted` accepts.
// There are no FS, GS and CS overrides: the host's bases differ.
Encoding random_encoding(Random& random, Mode mode, const std::function<bool(const Encoding&)>& wanted);

// Decodes `encoding.bytes` again, after they were changed. False: no instruction.
bool decode(Mode mode, Encoding& encoding);

}  // namespace sevisor::cpu_diff
