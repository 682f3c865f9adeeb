// What the hypervisor of an ordinary guest does with an instruction that was intercepted: finds out what it wants, by
// Zydis, and writes its result into the guest's registers.
#pragma once

#include <Zydis/Zydis.h>
#include <array>
#include <cstdint>
#include <optional>
#include <span>

#include "emulator/cpu/vmsa.hpp"

namespace sevisor::kvm_unit_tests {

struct Decoded {
  ZydisDecodedInstruction info;
  std::array<ZydisDecodedOperand, ZYDIS_MAX_OPERAND_COUNT> operands;
};

// Nothing if the bytes are no instruction in the guest's mode.
[[nodiscard]] std::optional<Decoded> decode(const emulator::Vmsa& guest, std::span<const std::uint8_t> bytes);

// Goes on behind the instruction.
void skip(emulator::Vmsa& guest, unsigned length);

// A general register's part, 1, 2, 4 or 8 bytes; AH to BH as they are. Writes of 4 bytes clear the upper half.
[[nodiscard]] std::uint64_t read_register(const emulator::Vmsa& guest, ZydisRegister reg);
void write_register(emulator::Vmsa& guest, ZydisRegister reg, std::uint64_t value);

// An access to a device's memory.
struct Access {
  bool write = false;
  unsigned size = 0;        // bytes
  std::uint64_t value = 0;  // to be written
};
// Of a MOV, MOVZX, MOVSX, STOS or LODS that touched memory without a slot; nothing for others.
[[nodiscard]] std::optional<Access> mmio_access(const emulator::Vmsa& guest, const Decoded& decoded);
// The value read goes where the instruction wants it.
void complete_read(emulator::Vmsa& guest, const Decoded& decoded, std::uint64_t value);

}  // namespace sevisor::kvm_unit_tests
