// Decodes the instructions that a #VC handler emulates, in 64-bit mode, and no others: what is not in its tables is
// refused. APM vol. 3 chapter 1 (encoding). Freestanding.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

namespace sevisor::ghcb::guest {

inline constexpr std::size_t kMaxInstructionBytes = 15;

// Numbers of the general registers in instruction encodings.
enum RegisterNumber : unsigned { kRax, kRcx, kRdx, kRbx, kRsp, kRbp, kRsi, kRdi };

// What the interrupted code had in its registers.
struct Registers {
  std::uint64_t general[16] = {};  // by RegisterNumber, then R8 to R15
  std::uint64_t rip = 0;
  std::uint64_t rflags = 0;
};
inline constexpr std::uint64_t kFlagDirection = 1 << 10;

enum class SegmentOverride : std::uint8_t { kNone, kFs, kGs };  // the others mean nothing in 64-bit mode

struct Instruction {
  std::uint16_t opcode = 0;  // 0x0fxx for the two-byte map
  std::uint8_t length = 0;   // bytes, 1 to 15
  std::uint8_t rex = 0;      // 0 without; otherwise 0x40 to 0x4f
  std::uint8_t modrm = 0;    // 0 without
  std::uint8_t sib = 0;
  bool has_modrm = false;
  bool has_sib = false;
  bool rep = false;         // F3
  bool repne = false;       // F2
  bool operand_16 = false;  // 66 without REX.W
  bool address_32 = false;  // 67
  SegmentOverride segment = SegmentOverride::kNone;
  std::int32_t displacement = 0;
  std::uint64_t immediate = 0;  // sign-extended; the address itself for the moffs forms

  // 1 is never among them: whether an opcode is the byte form is the opcode's matter.
  [[nodiscard]] constexpr unsigned operand_size() const noexcept { return (rex & 8) != 0 ? 8 : operand_16 ? 2 : 4; }
  [[nodiscard]] constexpr unsigned address_size() const noexcept { return address_32 ? 4 : 8; }
  [[nodiscard]] constexpr unsigned mod() const noexcept { return modrm >> 6; }
  [[nodiscard]] constexpr unsigned reg() const noexcept { return (modrm >> 3 & 7u) | (rex & 4u) << 1; }
  [[nodiscard]] constexpr unsigned rm() const noexcept { return (modrm & 7u) | (rex & 1u) << 3; }
  [[nodiscard]] constexpr bool repeats() const noexcept { return rep || repne; }
};

// Nothing when the bytes end too early, exceed 15, or are not one of the instructions that the handler knows; nor with
// LOCK.
[[nodiscard]] std::optional<Instruction> decode(std::span<const std::uint8_t> bytes) noexcept;

// Offset of the memory operand of an instruction with ModRM (mod not 3) or of a moffs form, without its segment's base.
// `registers.rip` is the address of the instruction itself.
[[nodiscard]] std::uint64_t effective_address(const Instruction& instruction, const Registers& registers) noexcept;

// A general register of 1, 2, 4 or 8 bytes. Without REX, byte registers 4 to 7 are AH, CH, DH, BH.
[[nodiscard]] std::uint64_t read_register(const Registers& registers, unsigned number, unsigned size,
                                          bool rex) noexcept;
// As the processor writes it: 4 bytes clear the upper half, fewer keep the rest.
void write_register(Registers& registers, unsigned number, unsigned size, bool rex, std::uint64_t value) noexcept;

}  // namespace sevisor::ghcb::guest
