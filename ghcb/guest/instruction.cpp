#include "ghcb/guest/instruction.hpp"

namespace sevisor::ghcb::guest {

namespace {
enum class Form : std::uint8_t {
  kNone,           // opcode alone
  kImmediate8,     // IN, OUT with a port number
  kModrm,          // register and memory operand
  kModrmImm8,      // C6
  kModrmImmFull,   // C7: 2 or 4 bytes
  kMoffs,          // A0 to A3: an address of the address size
  kModrmRegister,  // ModRM of which only the register fields count, whatever mod says
};

struct OpcodeForm {
  std::uint16_t opcode;
  Form form;
};

constexpr OpcodeForm kForms[] = {
    {0x6c, Form::kNone},
    {0x6d, Form::kNone},
    {0x6e, Form::kNone},
    {0x6f, Form::kNone},
    {0x88, Form::kModrm},
    {0x89, Form::kModrm},
    {0x8a, Form::kModrm},
    {0x8b, Form::kModrm},
    {0xa0, Form::kMoffs},
    {0xa1, Form::kMoffs},
    {0xa2, Form::kMoffs},
    {0xa3, Form::kMoffs},
    {0xa4, Form::kNone},
    {0xa5, Form::kNone},
    {0xaa, Form::kNone},
    {0xab, Form::kNone},
    {0xc6, Form::kModrmImm8},
    {0xc7, Form::kModrmImmFull},
    {0xe4, Form::kImmediate8},
    {0xe5, Form::kImmediate8},
    {0xe6, Form::kImmediate8},
    {0xe7, Form::kImmediate8},
    {0xec, Form::kNone},
    {0xed, Form::kNone},
    {0xee, Form::kNone},
    {0xef, Form::kNone},
    {0x0f01, Form::kModrmRegister},
    {0x0f08, Form::kNone},
    {0x0f09, Form::kNone},
    {0x0f21, Form::kModrmRegister},
    {0x0f23, Form::kModrmRegister},
    {0x0f30, Form::kNone},
    {0x0f31, Form::kNone},
    {0x0f32, Form::kNone},
    {0x0f33, Form::kNone},
    {0x0fa2, Form::kNone},
    {0x0fb6, Form::kModrm},
    {0x0fb7, Form::kModrm},
    {0x0fbe, Form::kModrm},
    {0x0fbf, Form::kModrm},
};

// Hands out the instruction's bytes one by one; after the last one it gives zeros and says so.
class Bytes {
 public:
  explicit Bytes(std::span<const std::uint8_t> bytes) noexcept
      : bytes_(bytes.first(bytes.size() < kMaxInstructionBytes ? bytes.size() : kMaxInstructionBytes)) {}

  std::uint8_t next() noexcept {
    if (at_ == bytes_.size()) {
      short_ = true;
      return 0;
    }
    return bytes_[at_++];
  }
  // `size` bytes, 1 to 8, sign-extended.
  std::uint64_t next_signed(unsigned size) noexcept {
    std::uint64_t value = 0;
    for (unsigned i = 0; i < size; ++i) value |= std::uint64_t{next()} << (8 * i);
    const unsigned shift = 64 - 8 * size;
    return static_cast<std::uint64_t>(static_cast<std::int64_t>(value << shift) >> shift);
  }
  [[nodiscard]] bool ran_out() const noexcept { return short_; }
  [[nodiscard]] std::uint8_t used() const noexcept { return static_cast<std::uint8_t>(at_); }

 private:
  std::span<const std::uint8_t> bytes_;
  std::size_t at_ = 0;
  bool short_ = false;
};

// Reads prefixes into `instruction` and returns the first byte that is none. False in `ok` for LOCK.
std::uint8_t read_prefixes(Bytes& bytes, Instruction& instruction, bool& ok) noexcept {
  bool operand_prefix = false;
  std::uint8_t byte = 0;
  for (;;) {
    byte = bytes.next();
    if (bytes.ran_out()) break;
    if (byte >= 0x40 && byte <= 0x4f) {
      instruction.rex = byte;  // counts only when the opcode follows
      continue;
    }
    if (byte == 0x66) {
      operand_prefix = true;
    } else if (byte == 0x67) {
      instruction.address_32 = true;
    } else if (byte == 0xf2 || byte == 0xf3) {
      instruction.rep = byte == 0xf3;
      instruction.repne = byte == 0xf2;
    } else if (byte == 0x64) {
      instruction.segment = SegmentOverride::kFs;
    } else if (byte == 0x65) {
      instruction.segment = SegmentOverride::kGs;
    } else if (byte == 0xf0) {
      ok = false;
    } else if (byte != 0x26 && byte != 0x2e && byte != 0x36 && byte != 0x3e) {
      break;
    }
    instruction.rex = 0;
  }
  instruction.operand_16 = operand_prefix && (instruction.rex & 8) == 0;
  return byte;
}

void read_memory_operand(Bytes& bytes, Instruction& instruction) noexcept {
  const unsigned rm = instruction.modrm & 7u;
  if (instruction.mod() == 3) return;
  unsigned base = rm;
  if (rm == 4) {
    instruction.sib = bytes.next();
    instruction.has_sib = true;
    base = instruction.sib & 7u;
  }
  if (instruction.mod() == 1) {
    instruction.displacement = static_cast<std::int32_t>(bytes.next_signed(1));
  } else if (instruction.mod() == 2 || (instruction.mod() == 0 && base == 5)) {
    instruction.displacement = static_cast<std::int32_t>(bytes.next_signed(4));
  }
}

const OpcodeForm* find_form(std::uint16_t opcode) noexcept {
  for (const OpcodeForm& entry : kForms) {
    if (entry.opcode == opcode) return &entry;
  }
  return nullptr;
}
}  // namespace

std::optional<Instruction> decode(std::span<const std::uint8_t> code) noexcept {
  Bytes bytes(code);
  Instruction instruction;
  bool ok = true;
  instruction.opcode = read_prefixes(bytes, instruction, ok);
  if (instruction.opcode == 0x0f) instruction.opcode = static_cast<std::uint16_t>(0x0f00 | bytes.next());
  const OpcodeForm* entry = find_form(instruction.opcode);
  if (!ok || entry == nullptr) return std::nullopt;

  if (entry->form == Form::kImmediate8) instruction.immediate = bytes.next();
  if (entry->form == Form::kMoffs) {
    instruction.immediate = bytes.next_signed(instruction.address_size());
    if (instruction.address_32) instruction.immediate &= 0xffffffff;
  }
  if (entry->form == Form::kModrm || entry->form == Form::kModrmImm8 || entry->form == Form::kModrmImmFull ||
      entry->form == Form::kModrmRegister) {
    instruction.modrm = bytes.next();
    instruction.has_modrm = true;
    if (entry->form != Form::kModrmRegister) read_memory_operand(bytes, instruction);
  }
  // Group 7 has other instructions, with memory operands, under 0F 01.
  if (instruction.opcode == 0x0f01 && instruction.mod() != 3) return std::nullopt;
  // C6 and C7 are MOV only with 0 in the register field (group 11).
  if (entry->form == Form::kModrmImm8 || entry->form == Form::kModrmImmFull) {
    if ((instruction.modrm >> 3 & 7) != 0) return std::nullopt;
    const bool byte_form = entry->form == Form::kModrmImm8;
    instruction.immediate = bytes.next_signed(byte_form ? 1 : instruction.operand_16 ? 2 : 4);
  }
  if (bytes.ran_out()) return std::nullopt;
  instruction.length = bytes.used();
  return instruction;
}

std::uint64_t effective_address(const Instruction& instruction, const Registers& registers) noexcept {
  std::uint64_t address = 0;
  if (!instruction.has_modrm) {
    address = instruction.immediate;
  } else {
    address = static_cast<std::uint64_t>(std::int64_t{instruction.displacement});
    if (instruction.has_sib) {
      const unsigned index = (instruction.sib >> 3 & 7u) | (instruction.rex & 2u) << 2;
      const unsigned base = (instruction.sib & 7u) | (instruction.rex & 1u) << 3;
      if (index != kRsp) address += registers.general[index] << (instruction.sib >> 6);
      if (instruction.mod() != 0 || (base & 7) != 5) address += registers.general[base];
    } else if (instruction.mod() == 0 && (instruction.modrm & 7) == 5) {
      address += registers.rip + instruction.length;
    } else {
      address += registers.general[instruction.rm()];
    }
  }
  return instruction.address_32 ? address & 0xffffffff : address;
}

std::uint64_t read_register(const Registers& registers, unsigned number, unsigned size, bool rex) noexcept {
  if (size == 1 && !rex && number >= 4 && number < 8) return registers.general[number - 4] >> 8 & 0xff;
  return size == 8 ? registers.general[number] : registers.general[number] & ((std::uint64_t{1} << (8 * size)) - 1);
}

void write_register(Registers& registers, unsigned number, unsigned size, bool rex, std::uint64_t value) noexcept {
  const bool high_byte = size == 1 && !rex && number >= 4 && number < 8;
  const unsigned shift = high_byte ? 8 : 0;
  std::uint64_t& target = registers.general[high_byte ? number - 4 : number];
  if (size >= 4) {
    target = size == 8 ? value : value & 0xffffffff;
    return;
  }
  const std::uint64_t mask = ((std::uint64_t{1} << (8 * size)) - 1) << shift;
  target = (target & ~mask) | (value << shift & mask);
}

}  // namespace sevisor::ghcb::guest
