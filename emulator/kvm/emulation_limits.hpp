// What the instruction emulator of Linux' KVM cannot do, so that a guest ends here where it would end there.
#pragma once

#include <cstdint>
#include <span>

#include "base/address.hpp"

namespace sevisor::emulator {

// arch/x86/kvm/emulate.c: its opcode tables. `code_bits`: 16, 32 or 64. Bytes that are no whole instruction (it goes on
// in the next page) pass.
[[nodiscard]] bool kvm_emulates(std::span<const std::uint8_t> instruction, unsigned code_bits);

// Of a guest with SEV KVM cannot read the page tables, and knows of one address alone which memory it is: that of the
// access which failed, at `failed` (x86.c emulator_can_use_gpa(), emulator_read_write_onepage()).
[[nodiscard]] bool needs_page_tables(std::span<const std::uint8_t> instruction, unsigned code_bits, Gpa failed);

}  // namespace sevisor::emulator
