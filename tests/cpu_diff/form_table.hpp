// A table of all instruction encodings, found by trying every opcode of every map under every combination of prefixes
// that selects an instruction, and sorted into forms.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "tests/cpu_diff/encodings.hpp"

namespace sevisor::cpu_diff {

// A mnemonic with its repetition or lock prefix and the kinds and sizes of its visible operands: "lock add m32, r32".
struct FormEntry {
  std::string name;
  std::vector<Encoding> samples;  // one for each way to encode it
};

// Forms of legacy and VEX encodings, sorted by name. EVEX is left out.
std::vector<FormEntry> list_forms(Mode mode);

[[nodiscard]] std::string form_name_of(const Encoding& encoding);

// A random encoding of the form: registers, addresses, immediates and prefixes without a meaning for it are drawn.
// False: none was found in a reasonable time.
bool vary(Random& random, Mode mode, const FormEntry& form, Encoding& out);

}  // namespace sevisor::cpu_diff
