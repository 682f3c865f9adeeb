// Extensions in the opcode space of VEX: of which one an encoding would be, and who says whether it is an instruction.
//
// The guest's CPUID is that of an EPYC of family 25 model 1. What it does not offer is undefined there, as the manuals
// have it, and a host that has more knows nothing about that.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "tests/cpu_diff/processor.hpp"

namespace sevisor::cpu_diff {

struct Extension {
  std::string_view name;
  std::string_view manual;  // document and section
  CpuidBit bit;             // a processor that has it
  bool in_engine = false;   // the guest's CPUID has it too
};

// VEX.pp.
inline constexpr unsigned kNoPrefix = 1 << 0;
inline constexpr unsigned k66 = 1 << 1;
inline constexpr unsigned kF3 = 1 << 2;
inline constexpr unsigned kF2 = 1 << 3;
inline constexpr unsigned kAnyPrefix = kNoPrefix | k66 | kF3 | kF2;

// Opcodes first..last of a map, under some of VEX.pp. Reserved values of R, W, L, vvvv and ModRM belong to it too.
struct OpcodeRange {
  const Extension* extension;
  unsigned map;  // VEX.mmmmm
  unsigned first, last;
  unsigned prefixes;
  bool only_256 = false;  // VEX.L = 1: with 0 the opcode is an older extension's
};

[[nodiscard]] std::span<const OpcodeRange> vex_opcodes();

// Which extension `code` belongs to: prefixes, VEX and an opcode. nullptr: none of the table, or not VEX.
[[nodiscard]] const Extension* vex_extension(std::span<const std::uint8_t> code);

// Who says whether `code` is an instruction?
enum class Authority : std::uint8_t {
  kHost,    // the host's processor, and the engine agrees with it
  kManual,  // the guest does not have it: it is #UD in the engine, and the host is not asked
  kNobody,  // the guest has it and the host does not
};
[[nodiscard]] Authority authority(const Processor& host, std::span<const std::uint8_t> code);

// Is the engine right about whether `code` is undefined? What the host says counts if it is the authority.
[[nodiscard]] bool rightly_undefined(Authority authority, bool on_host, bool in_engine);

}  // namespace sevisor::cpu_diff
