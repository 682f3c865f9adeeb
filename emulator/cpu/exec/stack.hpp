// The stack as PUSH, CALL and their like reach it: element type T, stack pointer type S.
#pragma once

#include "emulator/cpu/exec/forms.hpp"

namespace sevisor::emulator {

// Linear address of `sp`. Bases do not count in 64-bit mode.
template <class S>
[[nodiscard]] inline std::uint64_t stack_address(const Core& core, S sp) noexcept {
  if constexpr (sizeof(S) == 8) {
    return sp;
  } else {
    return sp + core.gpr[kRegSegmentBase + kSs];
  }
}

template <class T, class S>
[[nodiscard]] inline bool read_stack(Core& core, S sp, T& out) noexcept {
  return core.read<T>(stack_address<S>(core, sp), out) || core.stack_fault();
}
template <class T, class S>
[[nodiscard]] inline bool write_stack(Core& core, S sp, T value) noexcept {
  return core.write<T>(stack_address<S>(core, sp), value) || core.stack_fault();
}

template <class T, class S>
[[nodiscard]] inline bool push(Core& core, T value) noexcept {
  const S sp = static_cast<S>(core.reg<S>(kOffsetRsp) - sizeof(T));
  if (!write_stack<T, S>(core, sp, value)) return false;
  core.set_reg<S>(kOffsetRsp, sp);
  return true;
}

// False: push() would fault, which is noted.
template <class T, class S>
[[nodiscard]] inline bool can_push(Core& core) noexcept {
  const S sp = static_cast<S>(core.reg<S>(kOffsetRsp) - sizeof(T));
  return core.probe_write(stack_address<S>(core, sp), sizeof(T)) || core.stack_fault();
}

[[nodiscard]] inline unsigned stack_bits(const Insn& insn) {
  constexpr unsigned kStackBig = 4;  // Core::mode_bits()
  if (insn.code64()) return 64;
  return (insn.mode & kStackBig) != 0 ? 32 : 16;
}

// Calls `f` with the element type of the instruction's operand size and the stack pointer's type.
template <class F>
bool with_stack(const Insn& insn, F f) {
  const unsigned bits = insn.operand_bits();
  switch (stack_bits(insn)) {
    case 64:
      return bits == 16 ? f.template operator()<std::uint16_t, std::uint64_t>()
                        : f.template operator()<std::uint64_t, std::uint64_t>();
    case 32:
      return bits == 16 ? f.template operator()<std::uint16_t, std::uint32_t>()
                        : f.template operator()<std::uint32_t, std::uint32_t>();
    default:
      return bits == 16 ? f.template operator()<std::uint16_t, std::uint16_t>()
                        : f.template operator()<std::uint32_t, std::uint16_t>();
  }
}

}  // namespace sevisor::emulator
