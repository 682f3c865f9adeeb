// Writes the host code for one vector instruction: load the registers it names, run it with its memory operand at [RSI]
// and its general register in RAX, store the registers back. RDI: VectorState; RSI: memory operand; R10: Core::gpr.
#include <algorithm>
#include <initializer_list>
#include <vector>

#include "emulator/cpu/host_stubs.hpp"
#include "emulator/cpu/vector.hpp"

namespace sevisor::emulator {

namespace {

constexpr std::size_t kYmmOffset = 0;
static_assert(offsetof(VectorState, ymm) == kYmmOffset);

constexpr std::uint8_t kModRegister = 3;
constexpr std::uint8_t kRmRsi = 6;
constexpr std::uint8_t kRexW = 8;
constexpr std::uint8_t kRexR = 4;
constexpr std::uint8_t kRexB = 1;

class Code {
 public:
  void bytes(std::initializer_list<unsigned> list) {
    for (const unsigned b : list) out_.push_back(static_cast<std::uint8_t>(b));
  }
  void byte(unsigned b) { out_.push_back(static_cast<std::uint8_t>(b)); }
  void disp32(std::size_t value) {
    for (unsigned shift = 0; shift < 32; shift += 8) byte(static_cast<unsigned>(value >> shift) & 0xff);
  }
  // MOVAPS between XMM n and the state at RDI.
  void xmm(unsigned n, bool to_state) {
    if (n >= 8) byte(0x44);
    bytes({0x0f, to_state ? 0x29U : 0x28U, 0x80 | (n & 7) << 3 | 7});
    disp32(kYmmOffset + n * 32);
  }
  // MOV between one of RAX, RCX, RDX, RBX and a slot of Core::gpr at R10.
  void gpr(unsigned host, std::size_t offset, bool to_state) {
    bytes({0x49, to_state ? 0x89U : 0x8bU, 0x80 | host << 3 | 2});
    disp32(offset);
  }
  void mxcsr(unsigned opcode_extension, std::size_t offset) {
    bytes({0x0f, 0xae, 0x80 | opcode_extension << 3 | 7});
    disp32(offset);
  }
  void x87(unsigned opcode_extension) {  // FXSAVE64 /0, FXRSTOR64 /1
    bytes({0x48, 0x0f, 0xae, 0x80 | opcode_extension << 3 | 7});
    disp32(offsetof(VectorState, x87));
  }
  [[nodiscard]] std::span<const std::uint8_t> get() const { return out_; }

 private:
  std::vector<std::uint8_t> out_;
};

constexpr unsigned kLdmxcsr = 2;
constexpr unsigned kStmxcsr = 3;

struct GprUse {
  unsigned host = 0;       // host register number: 0 RAX, 1 RCX, 2 RDX
  std::size_t offset = 0;  // of the guest's in Core::gpr
  bool written = false;
};

// What the instruction touches.
struct Uses {
  std::vector<unsigned> xmm_read, xmm_written;
  std::vector<GprUse> gprs;
  bool gpr_in_reg = false;  // ModRM.reg (rm) names a general register: it becomes RAX
  bool gpr_in_rm = false;
  bool flags_in = false;
  bool flags_out = false;
  bool x87 = false;
  const ZydisDecodedOperand* memory = nullptr;
};

bool reads(const ZydisDecodedOperand& o) { return (o.actions & ZYDIS_OPERAND_ACTION_MASK_READ) != 0; }
bool writes(const ZydisDecodedOperand& o) { return (o.actions & ZYDIS_OPERAND_ACTION_MASK_WRITE) != 0; }

bool add_general(const ZydisDecodedOperand& o, Uses& uses) {
  GprUse use{.offset = register_offset(o.reg.value), .written = writes(o)};
  if (o.encoding == ZYDIS_OPERAND_ENCODING_MODRM_REG) {
    uses.gpr_in_reg = true;
  } else if (o.encoding == ZYDIS_OPERAND_ENCODING_MODRM_RM) {
    uses.gpr_in_rm = true;
  } else {
    use.host = static_cast<unsigned>(use.offset / 8);  // implicit: RAX, RCX or RDX as it is
    if (use.host > 2) return false;
  }
  uses.gprs.push_back(use);
  return true;
}

bool collect(const Insn& insn, Uses& uses) {
  for (unsigned n = 0; n < insn.info.operand_count; ++n) {
    const ZydisDecodedOperand& o = insn.op(n);
    if (o.type == ZYDIS_OPERAND_TYPE_MEMORY) {
      if (uses.memory != nullptr || o.visibility == ZYDIS_OPERAND_VISIBILITY_HIDDEN) return false;
      uses.memory = &o;
    }
    if (o.type != ZYDIS_OPERAND_TYPE_REGISTER) continue;
    switch (ZydisRegisterGetClass(o.reg.value)) {
      case ZYDIS_REGCLASS_XMM: {
        const auto number = static_cast<unsigned>(ZydisRegisterGetId(o.reg.value));
        uses.xmm_read.push_back(number);  // written ones too: many keep a part
        if (writes(o)) uses.xmm_written.push_back(number);
        break;
      }
      case ZYDIS_REGCLASS_GPR8:
      case ZYDIS_REGCLASS_GPR16:
      case ZYDIS_REGCLASS_GPR32:
      case ZYDIS_REGCLASS_GPR64:
        if (!add_general(o, uses)) return false;
        break;
      case ZYDIS_REGCLASS_FLAGS:
        uses.flags_in = uses.flags_in || reads(o);
        uses.flags_out = uses.flags_out || writes(o);
        break;
      case ZYDIS_REGCLASS_MMX:
      case ZYDIS_REGCLASS_X87:
        uses.x87 = true;
        break;
      default:
        break;
    }
  }
  const auto set = insn.info.meta.isa_set;
  uses.x87 = uses.x87 || set == ZYDIS_ISA_SET_X87 || set == ZYDIS_ISA_SET_FCMOV || set == ZYDIS_ISA_SET_SSE3X87 ||
             set == ZYDIS_ISA_SET_PENTIUMMMX;
  return true;
}

// The instruction again, its operands where the stub keeps them.
bool emit_instruction(const Insn& insn, const Uses& uses, Code& code) {
  const auto& info = insn.info;
  const auto& raw = info.raw;
  if (info.encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY) return false;
  const bool has_modrm = (info.attributes & ZYDIS_ATTRIB_HAS_MODRM) != 0;
  const bool has_rex = (info.attributes & ZYDIS_ATTRIB_HAS_REX) != 0;
  const std::size_t opcode_at = has_rex ? raw.rex.offset + std::size_t{1} : raw.prefix_count;

  // In 16-bit code the x87 environment has the short form without a prefix, here with one.
  const bool x87_short =
      uses.x87 && uses.memory != nullptr && (uses.memory->size == 14 * 8 || uses.memory->size == 94 * 8);
  const bool x87_long =
      uses.x87 && uses.memory != nullptr && (uses.memory->size == 28 * 8 || uses.memory->size == 108 * 8);
  for (std::size_t i = 0; i < opcode_at; ++i) {
    const auto b = std::to_integer<unsigned>(insn.bytes[i]);
    const bool mandatory = b == 0x66 || b == 0xf2 || b == 0xf3;
    if (mandatory && !((x87_short || x87_long) && b == 0x66)) code.byte(b);
  }
  if (x87_short) code.byte(0x66);

  std::uint8_t rex = 0;
  if (has_rex) {
    rex = static_cast<std::uint8_t>((raw.rex.W != 0 ? kRexW : 0) | (raw.rex.R != 0 ? kRexR : 0) |
                                    (raw.rex.B != 0 ? kRexB : 0));
  }
  auto reg = raw.modrm.reg;
  auto rm = raw.modrm.rm;
  auto mod = raw.modrm.mod;
  if (uses.gpr_in_reg) {
    reg = 0;
    rex &= static_cast<std::uint8_t>(~kRexR);
  }
  if (has_modrm && uses.memory != nullptr) {
    mod = 0;
    rm = kRmRsi;
    rex &= static_cast<std::uint8_t>(~kRexB);
  } else if (uses.gpr_in_rm) {
    rm = 0;
    rex &= static_cast<std::uint8_t>(~kRexB);
  }
  if (rex != 0) code.byte(0x40U | rex);
  const std::size_t opcode_end = has_modrm ? raw.modrm.offset : info.length - raw.imm[0].size / 8U;
  if (has_modrm && uses.memory == nullptr && mod != kModRegister && !uses.x87) return false;
  for (std::size_t i = opcode_at; i < opcode_end; ++i) code.byte(std::to_integer<unsigned>(insn.bytes[i]));
  if (has_modrm) code.byte(static_cast<unsigned>(mod << 6 | reg << 3 | rm));
  for (const auto& imm : raw.imm) {
    for (unsigned i = 0; i < imm.size / 8U; ++i) code.byte(std::to_integer<unsigned>(insn.bytes[imm.offset + i]));
  }
  return true;
}

bool is_float(const Insn& insn) {
  const auto c = insn.info.meta.exception_class;
  return c == ZYDIS_EXCEPTION_CLASS_SSE2 || c == ZYDIS_EXCEPTION_CLASS_SSE3;
}

bool needs_alignment(const Insn& insn, const Uses& uses) {
  if (uses.memory == nullptr || uses.memory->size != 128) return false;
  switch (insn.info.mnemonic) {
    case ZYDIS_MNEMONIC_MOVUPS:
    case ZYDIS_MNEMONIC_MOVUPD:
    case ZYDIS_MNEMONIC_MOVDQU:
    case ZYDIS_MNEMONIC_LDDQU:
    case ZYDIS_MNEMONIC_PCMPESTRI:
    case ZYDIS_MNEMONIC_PCMPESTRM:
    case ZYDIS_MNEMONIC_PCMPISTRI:
    case ZYDIS_MNEMONIC_PCMPISTRM:
      return false;
    default:
      return true;
  }
}

}  // namespace

bool make_stub(const Insn& insn, Op& op) {
  Uses uses;
  if (!collect(insn, uses)) return false;
  const bool uses_float = is_float(insn);

  Code code;
  code.bytes({0x49, 0x89, 0xd2});  // mov r10, rdx
  constexpr unsigned kFxsave = 0;
  constexpr unsigned kFxrstor = 1;
  if (uses.x87) code.x87(kFxrstor);
  for (const unsigned n : uses.xmm_read) code.xmm(n, false);
  if (uses_float) code.mxcsr(kLdmxcsr, offsetof(VectorState, mxcsr));
  for (const GprUse& g : uses.gprs) code.gpr(g.host, g.offset & ~std::size_t{7}, false);
  if (uses.flags_in) {
    code.bytes({0xff, 0x76, kStubMemorySize - 8});  // push qword [rsi + 120]
    code.byte(0x9d);                                // popfq
  }
  if (!emit_instruction(insn, uses, code)) return false;
  if (uses.flags_out) code.bytes({0x9c, 0x41, 0x5b});  // pushfq; pop r11
  for (const GprUse& g : uses.gprs) {
    if (g.written) code.gpr(g.host, g.offset & ~std::size_t{7}, true);
  }
  for (const unsigned n : uses.xmm_written) code.xmm(n, true);
  if (uses_float) {
    code.mxcsr(kStmxcsr, offsetof(VectorState, mxcsr));
    code.mxcsr(kLdmxcsr, offsetof(VectorState, host_mxcsr));
  }
  if (uses.x87) {
    code.x87(kFxsave);
    code.bytes({0xdb, 0xe3});  // fninit: compiled code expects an empty stack
  }
  if (uses.flags_out) code.bytes({0x4c, 0x89, 0xd8});  // mov rax, r11
  code.byte(0xc3);

  op.imm = reinterpret_cast<std::uintptr_t>(insn.stubs->intern(code.get()));
  op.aux = static_cast<std::uint8_t>((uses.flags_out ? kStubFlagsOut : 0) | (uses_float ? kStubFloat : 0));
  if (uses.memory != nullptr) {
    set_memory(insn, *uses.memory, op);
    op.bits = static_cast<std::uint8_t>(uses.memory->size / 8);
    op.aux |= static_cast<std::uint8_t>(kStubMemory | (reads(*uses.memory) ? kStubReads : 0) |
                                        (writes(*uses.memory) ? kStubWrites : 0) |
                                        (needs_alignment(insn, uses) ? kStubAligned : 0));
  }
  return true;
}

}  // namespace sevisor::emulator
