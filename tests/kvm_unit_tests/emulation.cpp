#include "emulation.hpp"

#include "base/bytes.hpp"
#include "emulator/cpu/registers.hpp"

namespace sevisor::kvm_unit_tests {

namespace {

using emulator::Vmsa;

constexpr std::uint16_t kSegDefault = 0x400;
constexpr std::uint16_t kSegLong = 0x200;

constexpr std::uint64_t Vmsa::*kGeneral[] = {&Vmsa::rax, &Vmsa::rcx, &Vmsa::rdx, &Vmsa::rbx, &Vmsa::rsp, &Vmsa::rbp,
                                             &Vmsa::rsi, &Vmsa::rdi, &Vmsa::r8,  &Vmsa::r9,  &Vmsa::r10, &Vmsa::r11,
                                             &Vmsa::r12, &Vmsa::r13, &Vmsa::r14, &Vmsa::r15};

std::uint64_t ones(unsigned bytes) { return bytes == 8 ? ~std::uint64_t{0} : (std::uint64_t{1} << 8 * bytes) - 1; }

// Which of them, how many bytes, and from which bit on.
struct Part {
  std::uint64_t Vmsa::*reg;
  unsigned bytes;
  unsigned shift;
};
Part part_of(ZydisRegister reg) {
  const bool high = reg >= ZYDIS_REGISTER_AH && reg <= ZYDIS_REGISTER_BH;
  const ZydisRegister whole = ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, reg);
  return {kGeneral[ZydisRegisterGetId(whole)], ZydisRegisterGetWidth(ZYDIS_MACHINE_MODE_LONG_64, reg) / 8U,
          high ? 8U : 0U};
}

}  // namespace

std::optional<Decoded> decode(const Vmsa& guest, std::span<const std::uint8_t> bytes) {
  const bool code64 = (guest.efer & emulator::kEferLma) != 0 && (guest.cs.attributes & kSegLong) != 0;
  const bool code32 = (guest.cs.attributes & kSegDefault) != 0;
  ZydisDecoder decoder;
  ZydisDecoderInit(&decoder,
                   code64   ? ZYDIS_MACHINE_MODE_LONG_64
                   : code32 ? ZYDIS_MACHINE_MODE_LEGACY_32
                            : ZYDIS_MACHINE_MODE_LEGACY_16,
                   code64   ? ZYDIS_STACK_WIDTH_64
                   : code32 ? ZYDIS_STACK_WIDTH_32
                            : ZYDIS_STACK_WIDTH_16);
  Decoded decoded;
  const ZyanStatus status =
      ZydisDecoderDecodeFull(&decoder, bytes.data(), bytes.size(), &decoded.info, decoded.operands.data());
  return ZYAN_SUCCESS(status) ? std::optional(decoded) : std::nullopt;
}

void skip(Vmsa& guest, unsigned length) {
  const bool code64 = (guest.efer & emulator::kEferLma) != 0 && (guest.cs.attributes & kSegLong) != 0;
  guest.rip += length;
  if (!code64) guest.rip &= (guest.cs.attributes & kSegDefault) != 0 ? 0xffff'ffff : 0xffff;
}

std::uint64_t read_register(const Vmsa& guest, ZydisRegister reg) {
  const Part part = part_of(reg);
  return guest.*part.reg >> part.shift & ones(part.bytes);
}

void write_register(Vmsa& guest, ZydisRegister reg, std::uint64_t value) {
  const Part part = part_of(reg);
  std::uint64_t& whole = guest.*part.reg;
  const std::uint64_t mask = part.bytes == 4 ? ~std::uint64_t{0} : ones(part.bytes) << part.shift;
  whole = (whole & ~mask) | ((value & ones(part.bytes)) << part.shift & mask);
}

std::optional<Access> mmio_access(const Vmsa& guest, const Decoded& decoded) {
  const ZydisDecodedOperand& first = decoded.operands[0];
  const ZydisDecodedOperand& second = decoded.operands[1];
  switch (decoded.info.mnemonic) {
    case ZYDIS_MNEMONIC_MOV:
      if (first.type == ZYDIS_OPERAND_TYPE_MEMORY) {
        const std::uint64_t value =
            second.type == ZYDIS_OPERAND_TYPE_IMMEDIATE ? second.imm.value.u : read_register(guest, second.reg.value);
        return Access{.write = true, .size = first.size / 8U, .value = value};
      }
      return Access{.size = second.size / 8U};
    case ZYDIS_MNEMONIC_MOVZX:
    case ZYDIS_MNEMONIC_MOVSX:
    case ZYDIS_MNEMONIC_MOVSXD:
      return Access{.size = second.size / 8U};
    default:
      return std::nullopt;
  }
}

void complete_read(Vmsa& guest, const Decoded& decoded, std::uint64_t value) {
  const unsigned bytes = decoded.operands[1].size / 8U;
  value &= ones(bytes);
  if (decoded.info.mnemonic == ZYDIS_MNEMONIC_MOVSX || decoded.info.mnemonic == ZYDIS_MNEMONIC_MOVSXD) {
    const std::uint64_t sign = std::uint64_t{1} << (8 * bytes - 1);
    value = (value ^ sign) - sign;
  }
  write_register(guest, decoded.operands[0].reg.value, value);
}

}  // namespace sevisor::kvm_unit_tests
