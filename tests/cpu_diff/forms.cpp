#include "tests/cpu_diff/forms.hpp"

#include <algorithm>
#include <fmt/format.h>
#include <map>
#include <stdexcept>

namespace sevisor::cpu_diff {

namespace {

constexpr std::array<std::uint8_t, 4> kPrefixes = {0, 0x66, 0xf3, 0xf2};  // as VEX.pp counts them

class Writer {
 public:
  explicit Writer(Encoding& e) : bytes_(e.bytes) {}
  void put(unsigned b) {
    if (size_ < bytes_.size()) bytes_[size_++] = static_cast<std::uint8_t>(b);
  }
  void fill(Random& random) {
    while (size_ < bytes_.size()) put(random.byte());
  }

 private:
  std::array<std::uint8_t, ZYDIS_MAX_INSTRUCTION_LENGTH>& bytes_;
  std::size_t size_ = 0;
};

unsigned prefix_number(std::uint8_t prefix) {
  unsigned n = 0;
  while (kPrefixes[n] != prefix) ++n;
  return n;
}

// The free bits: of VEX or REX (R, X, B) and VEX.vvvv, both inverted in VEX.
struct Extension {
  unsigned rxb = 0;
  unsigned vvvv = 15;
  bool short_vex = false;
};

void put_opcode(const Variant& v, Mode mode, const Extension& x, Writer& out) {
  if (v.vex) {
    const unsigned pp = prefix_number(v.prefix);
    const unsigned rxb = mode == Mode::k64 ? ~x.rxb & 7 : 7;
    const unsigned last = x.vvvv << 3 | (v.l ? 4U : 0U) | pp;
    if (x.short_vex && v.map == 1 && !v.w && (rxb & 3) == 3) {
      out.put(0xc5);
      out.put((rxb & 4) << 5 | last);
    } else {
      out.put(0xc4);
      out.put(rxb << 5 | v.map);
      out.put((v.w ? 0x80U : 0U) | last);
    }
  } else {
    if (v.prefix != 0) out.put(v.prefix);
    const unsigned rex = (v.w ? 8U : 0U) | x.rxb;
    if (mode == Mode::k64 && rex != 0) out.put(0x40 | rex);
    if (v.map != 0) out.put(0x0f);
    if (v.map == 2) out.put(0x38);
    if (v.map == 3) out.put(0x3a);
  }
  out.put(v.opcode);
}

void put_modrm(const Variant& v, unsigned mod, unsigned rm, Writer& out) { out.put(mod << 6 | v.reg << 3 | rm); }

bool selects_by_rm(const Variant& v) {
  const bool x87 = !v.vex && v.map == 0 && (v.opcode & 0xf8) == 0xd8;
  return x87 && !v.memory;
}

// Bytes that are no opcode of the one-byte map: prefixes and escapes.
bool is_prefix(unsigned byte, Mode mode) {
  constexpr std::array<std::uint8_t, 15> kBytes = {0x0f, 0x26, 0x2e, 0x36, 0x3e, 0x62, 0x64, 0x65,
                                                   0x66, 0x67, 0xc4, 0xc5, 0xf0, 0xf2, 0xf3};
  return std::find(kBytes.begin(), kBytes.end(), byte) != kBytes.end() || (mode == Mode::k64 && (byte & 0xf0) == 0x40);
}

const char* kind(const ZydisDecodedOperand& o) {
  switch (o.type) {
    case ZYDIS_OPERAND_TYPE_MEMORY:
      return "m";
    case ZYDIS_OPERAND_TYPE_IMMEDIATE:
      return "imm";
    case ZYDIS_OPERAND_TYPE_REGISTER:
      break;
    default:
      return "?";
  }
  switch (ZydisRegisterGetClass(o.reg.value)) {
    case ZYDIS_REGCLASS_XMM:
      return "xmm";
    case ZYDIS_REGCLASS_YMM:
      return "ymm";
    case ZYDIS_REGCLASS_MMX:
      return "mm";
    case ZYDIS_REGCLASS_X87:
      return o.reg.value == ZYDIS_REGISTER_ST0 ? "st0" : "st";
    default:
      return "r";
  }
}

}  // namespace

std::string form_name(const Encoding& e) {
  std::string name = e.info.encoding == ZYDIS_INSTRUCTION_ENCODING_VEX ? "vex " : "";
  name += ZydisMnemonicGetString(e.info.mnemonic);
  for (unsigned n = 0; n < e.info.operand_count_visible; ++n) {
    const ZydisDecodedOperand& o = e.operands[n];
    const std::string what = kind(o);
    name += n == 0 ? " " : ", ";
    name += what;
    if (what == "m" || what == "r") name += std::to_string(o.size);
  }
  return name;
}

std::vector<Form> find_forms(Mode mode, const std::function<bool(const Encoding&)>& wanted) {
  std::map<std::string, Form> forms;
  const auto try_variant = [&](const Variant& v) {
    Encoding e;
    Writer out(e);
    put_opcode(v, mode, {}, out);
    // As memory operand [ESI], and a SIB byte where the instruction asks for a vector index.
    put_modrm(v, v.memory ? 0 : 3, v.memory ? 6 : (v.rm >= 0 ? static_cast<unsigned>(v.rm) : 1), out);
    if (!decode(mode, e)) {
      // Three registers that must differ, and a second source that must not be there, are the usual reasons.
      Encoding other;
      Writer again(other);
      put_opcode(v, mode, {.vvvv = 13}, again);
      put_modrm(v, v.memory ? 0 : 3, v.memory ? 4 : 1, again);
      again.put(0x3e);  // SIB: base ESI, index 7
      if (!decode(mode, other)) return;
      e = other;
    }
    if (!wanted(e)) return;
    Form& form = forms[form_name(e)];
    form.variants.push_back(v);
  };
  const auto try_opcode = [&](Variant v) {
    for (const bool memory : {false, true}) {
      v.memory = memory;
      for (unsigned reg = 0; reg < 8; ++reg) {
        v.reg = static_cast<std::uint8_t>(reg);
        v.rm = -1;
        const bool each_rm = selects_by_rm(v);
        for (int rm = 0; rm < (each_rm ? 8 : 1); ++rm) {
          if (each_rm) v.rm = rm;
          try_variant(v);
        }
      }
    }
  };
  for (unsigned opcode = 0; opcode < 256; ++opcode) {
    for (std::uint8_t map = 0; map < 4; ++map) {
      if (map == 0 && is_prefix(opcode, mode)) continue;
      for (const std::uint8_t prefix : kPrefixes) {
        for (const bool w : {false, true}) {
          Variant v{.map = map, .prefix = prefix, .opcode = static_cast<std::uint8_t>(opcode), .w = w};
          if (!w || mode == Mode::k64) try_opcode(v);
          if (map == 0) continue;
          v.vex = true;
          for (const bool l : {false, true}) {
            v.l = l;
            try_opcode(v);
          }
        }
      }
    }
  }
  std::vector<Form> list;
  for (auto& [name, form] : forms) {
    form.name = name;
    list.push_back(std::move(form));
  }
  return list;
}

Encoding random_instance(Random& random, Mode mode, const Form& form) {
  constexpr int kAttempts = 10000;
  constexpr std::array<std::uint8_t, 3> kSegments = {0x26, 0x36, 0x3e};
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    const Variant& v = form.variants[random.below(form.variants.size())];
    Encoding e;
    Writer out(e);
    if (random.one_in(16)) out.put(kSegments[random.below(kSegments.size())]);
    if (random.one_in(16)) out.put(0x67);
    const Extension x{.rxb = static_cast<unsigned>(random.below(8)),
                      .vvvv = random.one_in(3) ? 15 : static_cast<unsigned>(random.below(16)),
                      .short_vex = random.one_in(2)};
    put_opcode(v, mode, x, out);
    const auto any = static_cast<unsigned>(random.below(8));
    put_modrm(v, v.memory ? static_cast<unsigned>(random.below(3)) : 3, v.rm >= 0 ? static_cast<unsigned>(v.rm) : any,
              out);
    out.fill(random);
    if (decode(mode, e) && form_name(e) == form.name) return e;
  }
  throw std::runtime_error("no instance of " + form.name);
}

}  // namespace sevisor::cpu_diff
