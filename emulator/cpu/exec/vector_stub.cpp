// Writes the host code for one vector instruction: load the registers it names, run it with its memory operand at [RSI]
// and its general register in RAX, store the registers back. x87 and MMX registers are the guest's then, see
// host_unit.hpp. RDI: VectorState; RSI: memory operand; R10: Core::gpr.
#include <algorithm>
#include <initializer_list>
#include <vector>

#include "emulator/cpu/exec/host_stubs.hpp"
#include "emulator/cpu/exec/vector.hpp"

namespace sevisor::emulator {

namespace {

constexpr std::size_t kYmmOffset = 0;
constexpr std::size_t kYmmSize = 32;
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
    disp32(kYmmOffset + n * kYmmSize);
  }
  // VMOVAPS between YMM n and the state at RDI.
  void ymm(unsigned n, bool to_state) {
    bytes({0xc5, n >= 8 ? 0x7cU : 0xfcU, to_state ? 0x29U : 0x28U, 0x80 | (n & 7) << 3 | 7});
    disp32(kYmmOffset + n * kYmmSize);
  }
  // MOV between one of RAX, RCX, RDX and a slot of Core::gpr at R10.
  void gpr(unsigned host, std::size_t offset, bool to_state) {
    bytes({0x49, to_state ? 0x89U : 0x8bU, 0x80 | host << 3 | 2});
    disp32(offset);
  }
  [[nodiscard]] std::span<const std::uint8_t> get() const { return out_; }

 private:
  std::vector<std::uint8_t> out_;
};

struct GprUse {
  unsigned host = 0;       // host register number: 0 RAX, 1 RCX, 2 RDX
  std::size_t offset = 0;  // of the guest's in Core::gpr
  bool written = false;
};

// What the instruction touches.
struct Uses {
  std::vector<unsigned> vectors_read, vectors_written;
  std::vector<GprUse> gprs;
  bool gpr_in_reg = false;  // ModRM.reg (rm) names a general register: it becomes RAX
  bool gpr_in_rm = false;
  bool flags_in = false;
  bool flags_out = false;
  bool vex = false;
  bool mmx = false;
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

void add_vector(const ZydisDecodedOperand& o, Uses& uses) {
  const unsigned number = static_cast<std::uint8_t>(ZydisRegisterGetId(o.reg.value));
  // Legacy instructions keep what they do not write.
  if (reads(o) || !uses.vex) uses.vectors_read.push_back(number);
  if (writes(o)) uses.vectors_written.push_back(number);
}

bool collect(const Insn& insn, Uses& uses) {
  uses.vex = insn.info.encoding == ZYDIS_INSTRUCTION_ENCODING_VEX;
  for (unsigned n = 0; n < insn.info.operand_count; ++n) {
    const ZydisDecodedOperand& o = insn.op(n);
    if (o.type == ZYDIS_OPERAND_TYPE_MEMORY) {
      const bool plain = o.mem.type == ZYDIS_MEMOP_TYPE_MEM && o.visibility != ZYDIS_OPERAND_VISIBILITY_HIDDEN;
      if (uses.memory != nullptr || !plain) return false;
      uses.memory = &o;
    }
    if (o.type != ZYDIS_OPERAND_TYPE_REGISTER) continue;
    switch (ZydisRegisterGetClass(o.reg.value)) {
      case ZYDIS_REGCLASS_XMM:
      case ZYDIS_REGCLASS_YMM:
        add_vector(o, uses);
        break;
      case ZYDIS_REGCLASS_GPR8:
      case ZYDIS_REGCLASS_GPR16:
      case ZYDIS_REGCLASS_GPR32:
      case ZYDIS_REGCLASS_GPR64:
        if (!add_general(o, uses)) return false;
        break;
      case ZYDIS_REGCLASS_FLAGS:
        uses.flags_in = true;  // some leave flags as they are
        uses.flags_out = uses.flags_out || writes(o);
        break;
      case ZYDIS_REGCLASS_MMX:
        uses.mmx = true;
        break;
      default:
        break;
    }
  }
  uses.mmx = uses.mmx || insn.info.meta.isa_ext == ZYDIS_ISA_EXT_MMX;
  return true;
}

// In 32-bit code VEX.W says nothing about the size of a general register.
bool ignores_vex_w(const Insn& insn, const Uses& uses) {
  if (insn.code64()) return false;
  switch (insn.info.mnemonic) {
    case ZYDIS_MNEMONIC_VMOVD:
    case ZYDIS_MNEMONIC_VCVTSI2SS:
    case ZYDIS_MNEMONIC_VCVTSI2SD:
    case ZYDIS_MNEMONIC_VPEXTRD:
    case ZYDIS_MNEMONIC_VPINSRD:
      return true;
    default:
      return !uses.gprs.empty();
  }
}

struct ModRm {
  unsigned mod, reg, rm;
};

// A legacy prefix that selects the instruction or its operand size.
bool emit_legacy_prefixes(const Insn& insn, const Uses& uses, Code& code) {
  const auto& raw = insn.info.raw;
  const bool has_rex = (insn.info.attributes & ZYDIS_ATTRIB_HAS_REX) != 0;
  const std::size_t end = has_rex ? raw.rex.offset : raw.prefix_count;
  for (std::size_t i = 0; i < end; ++i) {
    const auto b = std::to_integer<unsigned>(insn.bytes[i]);
    if (b == 0x66 || b == 0xf2 || b == 0xf3) code.byte(b);
  }
  unsigned rex = 0;
  if (has_rex) {
    rex = (raw.rex.W != 0 ? kRexW : 0U) | (raw.rex.R != 0 ? kRexR : 0U) | (raw.rex.B != 0 ? kRexB : 0U);
    if (uses.gpr_in_reg) rex &= ~unsigned{kRexR};
    if (uses.gpr_in_rm || uses.memory != nullptr) rex &= ~unsigned{kRexB};
  }
  if (rex != 0) code.byte(0x40U | rex);
  return true;
}

// The three-byte form, whatever the guest's was. R, X, B and vvvv stand inverted.
void emit_vex(const Insn& insn, const Uses& uses, Code& code) {
  constexpr unsigned kR = 0x80;
  constexpr unsigned kX = 0x40;
  constexpr unsigned kB = 0x20;
  constexpr unsigned kVexW = 0x80;
  constexpr unsigned kHighestV = 0x40;
  constexpr unsigned kMap0F = 1;
  const std::size_t at = insn.info.raw.vex.offset;
  const auto first = std::to_integer<unsigned>(insn.bytes[at + 1]);
  unsigned middle = (first & kR) | kX | kB | kMap0F;
  unsigned last = first & ~kR;
  if (std::to_integer<unsigned>(insn.bytes[at]) == 0xc4) {
    middle = first | kX;
    last = std::to_integer<unsigned>(insn.bytes[at + 2]);
  }
  if (uses.gpr_in_reg) middle |= kR;
  if (uses.gpr_in_rm || uses.memory != nullptr) middle |= kB;
  if (!insn.code64()) {
    middle |= kR | kB;
    last |= kHighestV;
    if (ignores_vex_w(insn, uses)) last &= ~kVexW;
  }
  code.bytes({0xc4, middle, last});
}

// Is the immediate byte a register's number?
bool fourth_register(const Insn& insn) {
  for (unsigned n = 0; n < insn.info.operand_count; ++n) {
    if (insn.op(n).encoding == ZYDIS_OPERAND_ENCODING_IS4) return true;
  }
  return false;
}
std::size_t immediate_size(const Insn& insn) {
  const auto& raw = insn.info.raw;
  const std::size_t size = raw.imm[0].size / 8U + raw.imm[1].size / 8U;
  return size == 0 && fourth_register(insn) ? 1 : size;
}

// The instruction again, its operands where the stub keeps them.
bool emit_instruction(const Insn& insn, const Uses& uses, Code& code) {
  const auto& info = insn.info;
  const auto& raw = info.raw;
  const bool has_modrm = (info.attributes & ZYDIS_ATTRIB_HAS_MODRM) != 0;
  std::size_t opcode_at = 0;
  if (uses.vex) {
    emit_vex(insn, uses, code);
    opcode_at = raw.vex.offset + std::size_t{raw.vex.size};
  } else if (info.encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY) {
    emit_legacy_prefixes(insn, uses, code);
    opcode_at = (info.attributes & ZYDIS_ATTRIB_HAS_REX) != 0 ? raw.rex.offset + std::size_t{1} : raw.prefix_count;
  } else {
    return false;
  }
  ModRm modrm{raw.modrm.mod, raw.modrm.reg, raw.modrm.rm};
  if (has_modrm && uses.memory == nullptr && modrm.mod != kModRegister) return false;
  if (uses.gpr_in_reg) modrm.reg = 0;
  if (uses.memory != nullptr) {
    modrm.mod = 0;
    modrm.rm = kRmRsi;
  } else if (uses.gpr_in_rm) {
    modrm.rm = 0;
  }
  const std::size_t immediate_at = info.length - immediate_size(insn);
  const std::size_t opcode_end = has_modrm ? raw.modrm.offset : immediate_at;
  for (std::size_t i = opcode_at; i < opcode_end; ++i) code.byte(std::to_integer<unsigned>(insn.bytes[i]));
  if (has_modrm) code.byte(modrm.mod << 6 | modrm.reg << 3 | modrm.rm);
  for (std::size_t i = immediate_at; i < info.length; ++i) {
    auto b = std::to_integer<unsigned>(insn.bytes[i]);
    if (fourth_register(insn) && !insn.code64()) b &= 0x7f;  // XMM0..7 only
    code.byte(b);
  }
  return true;
}

// Does it read MXCSR, and may it raise #XF?
bool is_float(const Insn& insn) {
  switch (insn.info.mnemonic) {  // between MMX and XMM registers; Zydis has no class for them
    case ZYDIS_MNEMONIC_CVTPI2PS:
    case ZYDIS_MNEMONIC_CVTPI2PD:
    case ZYDIS_MNEMONIC_CVTPS2PI:
    case ZYDIS_MNEMONIC_CVTPD2PI:
    case ZYDIS_MNEMONIC_CVTTPS2PI:
    case ZYDIS_MNEMONIC_CVTTPD2PI:
      return true;
    default:
      break;
  }
  switch (insn.info.meta.exception_class) {
    case ZYDIS_EXCEPTION_CLASS_SSE2:
    case ZYDIS_EXCEPTION_CLASS_SSE3:
    case ZYDIS_EXCEPTION_CLASS_AVX2:
    case ZYDIS_EXCEPTION_CLASS_AVX3:
    case ZYDIS_EXCEPTION_CLASS_AVX11:  // F16C
      return true;
    default:
      return insn.info.meta.isa_ext == ZYDIS_ISA_EXT_F16C || insn.info.meta.isa_ext == ZYDIS_ISA_EXT_FMA;
  }
}

bool needs_alignment(const Insn& insn, const Uses& uses) {
  if (uses.memory == nullptr || uses.vex || uses.memory->size != 128) return false;
  switch (insn.info.mnemonic) {
    case ZYDIS_MNEMONIC_PCMPESTRI:
    case ZYDIS_MNEMONIC_PCMPESTRM:
    case ZYDIS_MNEMONIC_PCMPISTRI:
    case ZYDIS_MNEMONIC_PCMPISTRM:
      return false;
    default:
      return true;
  }
}

// Of their 16 bytes in memory these legacy forms read the lower half alone. It shows where MXCSR.MM lets the operand
// cross into another page.
bool reads_half(const Insn& insn, const Uses& uses) {
  if (uses.vex || uses.memory->size != 128) return false;
  switch (insn.info.mnemonic) {
    case ZYDIS_MNEMONIC_PSLLW:
    case ZYDIS_MNEMONIC_PSLLD:
    case ZYDIS_MNEMONIC_PSLLQ:
    case ZYDIS_MNEMONIC_PSRLW:
    case ZYDIS_MNEMONIC_PSRLD:
    case ZYDIS_MNEMONIC_PSRLQ:
    case ZYDIS_MNEMONIC_PSRAW:
    case ZYDIS_MNEMONIC_PSRAD:
    case ZYDIS_MNEMONIC_PUNPCKLBW:
    case ZYDIS_MNEMONIC_PUNPCKLWD:
    case ZYDIS_MNEMONIC_PUNPCKLDQ:
    case ZYDIS_MNEMONIC_PUNPCKLQDQ:
    case ZYDIS_MNEMONIC_UNPCKLPS:
    case ZYDIS_MNEMONIC_UNPCKLPD:
      return true;
    default:
      return false;
  }
}

}  // namespace

bool make_stub(const Insn& insn, Op& op, StubTraits& traits) {
  Uses uses;
  if (!collect(insn, uses)) return false;
  traits.floating = is_float(insn);
  if (insn.info.mnemonic == ZYDIS_MNEMONIC_VCVTPS2PH) traits.rules |= kStubIgnoresFtz | kStubStoresFirst;
  if (insn.info.meta.isa_ext == ZYDIS_ISA_EXT_SHA) traits.rules |= kStubMayMisalign;
  traits.xmm = !uses.vectors_read.empty();

  Code code;
  code.bytes({0x49, 0x89, 0xd2});  // mov r10, rdx
  for (const unsigned n : uses.vectors_read) uses.vex ? code.ymm(n, false) : code.xmm(n, false);
  for (const GprUse& g : uses.gprs) code.gpr(g.host, g.offset & ~std::size_t{7}, false);
  if (uses.flags_in) {
    code.bytes({0xff, 0xb7});  // push qword [rdi + disp32]
    code.disp32(offsetof(VectorState, operand) + kStubFlagsOffset);
    code.byte(0x9d);  // popfq
  }
  if (!emit_instruction(insn, uses, code)) return false;
  if (uses.flags_out) code.bytes({0x9c, 0x41, 0x5b});  // pushfq; pop r11
  for (const GprUse& g : uses.gprs) {
    if (g.written) code.gpr(g.host, g.offset & ~std::size_t{7}, true);
  }
  for (const unsigned n : uses.vectors_written) uses.vex ? code.ymm(n, true) : code.xmm(n, true);
  if (uses.vex) code.bytes({0xc5, 0xf8, 0x77});        // vzeroupper: compiled code is SSE
  if (uses.flags_out) code.bytes({0x4c, 0x89, 0xd8});  // mov rax, r11
  code.byte(0xc3);

  op.imm = reinterpret_cast<std::uintptr_t>(insn.stubs->intern(code.get()));
  op.aux = static_cast<std::uint8_t>((uses.flags_out ? kStubFlagsOut : 0) | (uses.flags_in ? kStubFlagsIn : 0) |
                                     (uses.mmx ? kStubMmx : 0) | (uses.vex ? kStubVex : 0));
  if (uses.memory != nullptr) {
    set_memory(insn, *uses.memory, op);
    op.bits = static_cast<std::uint8_t>(uses.memory->size / (reads_half(insn, uses) ? 16 : 8));
    op.aux |= static_cast<std::uint8_t>(kStubMemory | (reads(*uses.memory) ? kStubReads : 0) |
                                        (writes(*uses.memory) ? kStubWrites : 0) |
                                        (needs_alignment(insn, uses) ? kStubAligned : 0));
  }
  return true;
}

}  // namespace sevisor::emulator
