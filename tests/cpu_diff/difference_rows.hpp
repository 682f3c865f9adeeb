// The functions of the rows in differences.cpp.
#pragma once

#include <algorithm>
#include <initializer_list>

#include "tests/cpu_diff/differences.hpp"

namespace sevisor::cpu_diff {

// Vectors of exceptions.
inline constexpr int kBoundRange = 5;
inline constexpr int kInvalidOpcode = 6;
inline constexpr int kStackFault = 12;
inline constexpr int kGeneralProtection = 13;
inline constexpr int kPageFault = 14;
inline constexpr int kFloatingPoint = 19;

[[nodiscard]] inline bool is_one_of(const Encoding& e, std::initializer_list<ZydisMnemonic> list) {
  return std::find(list.begin(), list.end(), e.info.mnemonic) != list.end();
}

// The memory operand that the encoding names, or nullptr.
[[nodiscard]] inline const ZydisDecodedOperand* memory_operand(const Encoding& e) {
  const auto* end = e.operands.data() + e.info.operand_count_visible;
  const auto* found = std::find_if(e.operands.data(), end,
                                   [](const ZydisDecodedOperand& o) { return o.type == ZYDIS_OPERAND_TYPE_MEMORY; });
  return found == end ? nullptr : found;
}

// `value` with the bits above `sign` made equal to it.
[[nodiscard]] inline std::uint64_t extended_from(unsigned sign, std::uint64_t value) {
  const unsigned above = 63 - sign;
  return static_cast<std::uint64_t>(static_cast<std::int64_t>(value << above) >> above);
}
inline constexpr unsigned kSignOf48 = 47;  // of an address of 48 bits
inline constexpr unsigned kSignOf57 = 56;

// integer_rows.cpp
void prefetch_of_register(const Ran& ran, const Machine& native, Machine& engine);
void repeated_loop(const Ran& ran, const Machine& native, Machine& engine);
void call_to_nowhere(const Ran& ran, const Machine& native, Machine& engine);
void bound_order(const Ran& ran, const Machine& native, Machine& engine);
void short_movsxd(const Ran& ran, const Machine& native, Machine& engine);
void short_strings(const Ran& ran, const Machine& native, Machine& engine);
void fast_cmpsb(const Ran& ran, const Machine& native, Machine& engine);
[[nodiscard]] bool short_near_branch(const Encoding& e);

// vector_rows.cpp
void misaligned_sha(const Ran& ran, const Machine& native, Machine& engine);
void misaligned_stack_area(const Ran& ran, const Machine& native, Machine& engine);
void wide_element_in_32_bits(const Ran& ran, const Machine& native, Machine& engine);
void half_precision_store(const Ran& ran, const Machine& native, Machine& engine);
void broken_gather(const Ran& ran, const Machine& native, Machine& engine);
[[nodiscard]] bool permutes_without_w(const Encoding& e);

// x87_rows.cpp
void x87_store(const Ran& ran, const Machine& native, Machine& engine);
void x87_pointers(const Ran& ran, const Machine& native, Machine& engine);
void stored_x87_pointers(const Ran& ran, const Machine& native, Machine& engine);
void loaded_x87_pointers(const Ran& ran, const Machine& native, Machine& engine);
void mxcsr_mask(const Ran& ran, const Machine& native, Machine& engine);

}  // namespace sevisor::cpu_diff
