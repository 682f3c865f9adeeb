// Every form of a chosen set of instructions, found by trying all opcodes, and random encodings of each.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "tests/cpu_diff/encodings.hpp"

namespace sevisor::cpu_diff {

// What an encoding leaves open is drawn at random: registers, address, immediate, REX or VEX bits without a meaning.
struct Variant {
  bool vex = false;
  std::uint8_t map = 0;     // 0 one byte, 1 0F, 2 0F 38, 3 0F 3A
  std::uint8_t prefix = 0;  // 0, 66, F3, F2
  std::uint8_t opcode = 0;
  bool w = false;
  bool l = false;  // VEX.L
  bool memory = false;
  std::uint8_t reg = 0;  // ModRM.reg
  int rm = -1;           // ModRM.rm where it selects the instruction, as in x87's register forms
};

// A mnemonic with the kinds and sizes of its visible operands: "addps xmm, m128".
struct Form {
  std::string name;
  std::vector<Variant> variants;
};

// Sorted by name.
std::vector<Form> find_forms(Mode mode, const std::function<bool(const Encoding&)>& wanted);

[[nodiscard]] std::string form_name(const Encoding& encoding);

// A random encoding of the form, now and then with a segment or address size prefix.
Encoding random_instance(Random& random, Mode mode, const Form& form);

}  // namespace sevisor::cpu_diff
