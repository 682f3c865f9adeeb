#include "tests/cpu_diff/form_table.hpp"

#include <algorithm>
#include <initializer_list>
#include <map>

namespace sevisor::cpu_diff {

namespace {

constexpr std::uint8_t kRex = 0x40;
constexpr std::uint8_t kRexW = 0x48;
constexpr std::uint8_t kVex3 = 0xc4;
constexpr std::uint8_t kVex2 = 0xc5;
constexpr std::uint8_t kAddressSize = 0x67;

const char* register_kind(ZydisRegister reg) {
  switch (ZydisRegisterGetClass(reg)) {
    case ZYDIS_REGCLASS_GPR8:
    case ZYDIS_REGCLASS_GPR16:
    case ZYDIS_REGCLASS_GPR32:
    case ZYDIS_REGCLASS_GPR64:
      return "r";
    case ZYDIS_REGCLASS_XMM:
      return "xmm";
    case ZYDIS_REGCLASS_YMM:
      return "ymm";
    case ZYDIS_REGCLASS_MMX:
      return "mm";
    case ZYDIS_REGCLASS_X87:
      return "st";
    case ZYDIS_REGCLASS_SEGMENT:
      return "sreg";
    case ZYDIS_REGCLASS_CONTROL:
      return "cr";
    case ZYDIS_REGCLASS_DEBUG:
      return "dr";
    default:
      return "reg";
  }
}

std::string operand_name(const ZydisDecodedOperand& o) {
  switch (o.type) {
    case ZYDIS_OPERAND_TYPE_MEMORY:
      return (o.mem.type == ZYDIS_MEMOP_TYPE_VSIB ? "vm" : "m") + std::to_string(o.size);
    case ZYDIS_OPERAND_TYPE_IMMEDIATE:
      return (o.imm.is_relative != ZYAN_FALSE ? "rel" : "imm") + std::to_string(o.size);
    case ZYDIS_OPERAND_TYPE_POINTER:
      return "ptr";
    default: {
      const std::string kind = register_kind(o.reg.value);
      return kind == "r" ? kind + std::to_string(o.size) : kind;
    }
  }
}

// An instruction's bytes up to its opcode or further. What does not fit is dropped.
class Front {
 public:
  Front(std::initializer_list<std::uint8_t> bytes) {
    for (const std::uint8_t b : bytes) put(b);
  }
  void put(unsigned byte) {
    if (size_ < bytes_.size()) bytes_[size_++] = static_cast<std::uint8_t>(byte);
  }
  void put(std::span<const std::uint8_t> bytes) {
    for (const std::uint8_t b : bytes) put(b);
  }
  [[nodiscard]] std::span<const std::uint8_t> bytes() const { return std::span(bytes_).first(size_); }

 private:
  std::array<std::uint8_t, ZYDIS_MAX_INSTRUCTION_LENGTH> bytes_{};
  std::size_t size_ = 0;
};

// Decodes `bytes`, zeros behind them; keeps the instruction as a sample of its form.
void try_bytes(Mode mode, const Front& bytes, std::map<std::string, FormEntry>& forms) {
  constexpr std::size_t kSamples = 64;
  Encoding e;
  std::ranges::copy(bytes.bytes(), e.bytes.begin());
  if (!decode(mode, e)) return;
  FormEntry& form = forms[form_name_of(e)];
  if (form.samples.size() < kSamples) form.samples.push_back(e);
}

// What a ModRM byte may select: each reg field with memory at [ESI] (at [ESI + index], as vector indices need it) and,
// where the register's number selects too, with each of those.
void try_modrm(Mode mode, const Front& front, bool each_rm, std::map<std::string, FormEntry>& forms) {
  constexpr unsigned kMemory = 6;
  constexpr unsigned kSibFollows = 4;
  constexpr std::uint8_t kSib = 0x3e;
  const auto attempt = [&](unsigned mod, unsigned reg, unsigned rm) {
    Front bytes = front;
    bytes.put(mod << 6 | reg << 3 | rm);
    bytes.put(kSib);
    try_bytes(mode, bytes, forms);
  };
  for (unsigned reg = 0; reg < 8; ++reg) {
    attempt(0, reg, kMemory);
    attempt(0, reg, kSibFollows);
    for (unsigned rm = each_rm ? 0 : 1; rm < (each_rm ? 8U : 2U); ++rm) attempt(3, reg, rm);
  }
}

void add_map(Front& front, unsigned map) {
  constexpr std::uint8_t kEscape = 0x0f;
  if (map > 0) front.put(kEscape);
  if (map == 2) front.put(0x38);
  if (map == 3) front.put(0x3a);
}

// Opcodes whose register operand selects the instruction: x87's, and the groups of 0F 01 and 0F AE.
bool selects_by_register(unsigned map, unsigned opcode) {
  return (map == 0 && opcode >= 0xd8 && opcode < 0xe0) || (map == 1 && (opcode == 0x01 || opcode == 0xae));
}

// Bytes that are prefixes or escapes in the one-byte map, not opcodes.
bool is_prefix(Mode mode, unsigned byte) {
  constexpr std::array<std::uint8_t, 13> kBytes = {0x0f, 0x26, 0x2e, 0x36, 0x3e, 0x62, 0x64,
                                                   0x65, 0x66, 0x67, 0xf0, 0xf2, 0xf3};
  return std::find(kBytes.begin(), kBytes.end(), byte) != kBytes.end() || (mode == Mode::k64 && (byte & 0xf0) == kRex);
}

void try_legacy(Mode mode, std::map<std::string, FormEntry>& forms) {
  static const std::vector<Front> kPrefixes = {{},
                                               {0x66},
                                               {0xf2},
                                               {0xf3},
                                               {0x66, 0xf2},
                                               {0x66, 0xf3},
                                               {0xf0},
                                               {0x66, 0xf0},
                                               {kAddressSize},
                                               {kAddressSize, 0xf2},
                                               {kAddressSize, 0xf3}};
  const std::vector<Front> rex = mode == Mode::k64 ? std::vector<Front>{{}, {kRex}, {kRexW}} : std::vector<Front>{{}};
  for (const Front& prefix : kPrefixes) {
    for (const Front& extension : rex) {
      for (unsigned map = 0; map < 4; ++map) {
        for (unsigned opcode = 0; opcode < 256; ++opcode) {
          if (map == 0 && is_prefix(mode, opcode)) continue;
          Front front = prefix;
          front.put(extension.bytes());
          add_map(front, map);
          front.put(opcode);
          try_modrm(mode, front, selects_by_register(map, opcode), forms);
        }
      }
    }
  }
}

void try_vex(Mode mode, std::map<std::string, FormEntry>& forms) {
  constexpr unsigned kNoExtension = 0xe0;
  constexpr std::array<unsigned, 2> kSources = {15, 13};  // VEX.vvvv, inverted: none; XMM2
  for (std::uint8_t map = 1; map < 4; ++map) {
    for (unsigned last = 0; last < 256; ++last) {
      const unsigned source = last >> 3 & 15;
      if (source != kSources[0] && source != kSources[1]) continue;
      for (unsigned opcode = 0; opcode < 256; ++opcode) {
        try_modrm(mode,
                  {kVex3, static_cast<std::uint8_t>(kNoExtension | map), static_cast<std::uint8_t>(last),
                   static_cast<std::uint8_t>(opcode)},
                  false, forms);
      }
    }
  }
}

// How many of the sample's bytes select it: all up to the ModRM byte, or to the operands that follow the opcode.
std::size_t selecting_bytes(const Encoding& e) {
  const auto& raw = e.info.raw;
  if (raw.modrm.offset != 0) return raw.modrm.offset;
  if (raw.disp.size != 0) return raw.disp.offset;
  if (raw.imm[0].size != 0) return raw.imm[0].offset;
  return e.info.length;
}

void draw_extension(Random& random, Mode mode, const Encoding& sample, Encoding& e) {
  const auto& raw = sample.info.raw;
  if (sample.info.encoding == ZYDIS_INSTRUCTION_ENCODING_VEX) {
    std::uint8_t& second = e.bytes[raw.vex.offset + 1U];
    std::uint8_t& third = e.bytes[raw.vex.offset + 2U];
    constexpr unsigned kRxb = 0xe0;
    constexpr unsigned kVvvv = 0x78;
    if (mode == Mode::k64) second = static_cast<std::uint8_t>((second & ~kRxb) | (random.byte() & kRxb));
    if (random.below(3) != 0) third = static_cast<std::uint8_t>((third & ~kVvvv) | (random.byte() & kVvvv));
  } else if (raw.rex.offset != 0 || e.bytes[0] == kRex || e.bytes[0] == kRexW) {
    std::uint8_t& rex = e.bytes[raw.rex.offset];
    if (mode == Mode::k64 && (rex & 0xf0) == kRex) rex = static_cast<std::uint8_t>((rex & 0xf8) | random.below(8));
  }
}

// The three-byte VEX prefix at the front as a two-byte one, where that can be.
void shorten_vex(Encoding& e) {
  constexpr unsigned kRest = 0x7f;
  if (e.bytes[0] != kVex3 || (e.bytes[1] & kRest) != 0x61 || (e.bytes[2] & 0x80) != 0) return;
  const std::uint8_t r = e.bytes[1] & 0x80;
  e.bytes[1] = static_cast<std::uint8_t>(r | e.bytes[2]);
  e.bytes[0] = kVex2;
  std::copy(e.bytes.begin() + 3, e.bytes.end(), e.bytes.begin() + 2);
}

}  // namespace

std::string form_name_of(const Encoding& e) {
  std::string name;
  const ZydisInstructionAttributes has = e.info.attributes;
  if (e.info.encoding == ZYDIS_INSTRUCTION_ENCODING_VEX) name += "vex ";
  if ((has & ZYDIS_ATTRIB_HAS_LOCK) != 0) name += "lock ";
  if ((has & ZYDIS_ATTRIB_HAS_REP) != 0) name += "rep ";
  if ((has & ZYDIS_ATTRIB_HAS_REPE) != 0) name += "repe ";
  if ((has & ZYDIS_ATTRIB_HAS_REPNE) != 0) name += "repne ";
  name += ZydisMnemonicGetString(e.info.mnemonic);
  if (e.info.meta.branch_type == ZYDIS_BRANCH_TYPE_FAR) name += " far";
  const bool string = e.info.meta.category == ZYDIS_CATEGORY_STRINGOP;
  if (string && e.info.raw.modrm.offset == 0) return name + " a" + std::to_string(e.info.address_width);
  for (unsigned n = 0; n < e.info.operand_count_visible; ++n)
    name += (n == 0 ? " " : ", ") + operand_name(e.operands[n]);
  return name;
}

std::vector<FormEntry> list_forms(Mode mode) {
  std::map<std::string, FormEntry> forms;
  try_legacy(mode, forms);
  try_vex(mode, forms);
  std::vector<FormEntry> list;
  for (auto& [name, form] : forms) {
    form.name = name;
    list.push_back(std::move(form));
  }
  return list;
}

bool vary(Random& random, Mode mode, const FormEntry& form, Encoding& out) {
  constexpr int kAttempts = 4000;
  constexpr std::array<std::uint8_t, 3> kSegments = {0x26, 0x36, 0x3e};
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    const Encoding& sample = form.samples[random.below(form.samples.size())];
    Encoding front = sample;
    draw_extension(random, mode, sample, front);
    std::size_t size = selecting_bytes(sample);
    if (random.one_in(2)) {
      const std::uint8_t before = front.bytes[0];
      shorten_vex(front);
      if (front.bytes[0] != before) --size;
    }
    Front bytes{};
    if (random.one_in(16)) bytes.put(kSegments[random.below(kSegments.size())]);
    if (random.one_in(10)) bytes.put(kAddressSize);
    bytes.put(std::span(front.bytes).first(size));
    if (sample.info.raw.modrm.offset != 0) {
      // Registers stay registers, and memory stays memory.
      const unsigned mod = sample.info.raw.modrm.mod == 3 ? 3 : static_cast<unsigned>(random.below(3));
      bytes.put(mod << 6 | (random.byte() & 0x3fU));
    }
    Encoding e;
    for (std::uint8_t& b : e.bytes) b = random.byte();
    std::ranges::copy(bytes.bytes(), e.bytes.begin());
    if (!decode(mode, e) || form_name_of(e) != form.name) continue;
    out = e;
    return true;
  }
  return false;
}

}  // namespace sevisor::cpu_diff
