#include "tests/cpu_diff/operands.hpp"

#include <bitset>
#include <cstring>
#include <fmt/format.h>

#include "base/bytes.hpp"
#include "emulator/cpu/state/flags.hpp"

namespace sevisor::cpu_diff {

namespace {

using namespace emulator;

constexpr std::uint64_t kPage = 4096;

enum Gpr : std::uint8_t { kRax, kRcx, kRdx, kRbx, kRsp, kRbp, kRsi, kRdi };

// A linear address for an operand of `size` bytes.
std::uint64_t pick_address(Random& random, const Encoding& e, std::uint64_t size) {
  const std::uint64_t kind = random.below(64);
  // Far away. Below 4 GiB the host may have mappings (AddressSanitizer has), but not in the first 64 KiB.
  if (kind == 0) return e.info.address_width == 64 ? random.next() : random.below(0xf000);
  if (kind < 3) return kData + kDataSize - random.below(size + 1);
  if (kind < 4) return kData - random.below(size + 1);
  if (kind < 9 && size > 1) return kData + kPage - 1 - random.below(size - 1);
  // Away from the edges: strings and stacks need room.
  constexpr std::uint64_t kMargin = 128;
  const std::uint64_t at = kData + kMargin + random.below(kDataSize - 2 * kMargin - size);
  return random.one_in(3) || (size & (size - 1)) != 0 ? at : at & ~(size - 1);
}

class Aim {
 public:
  Aim(Random& random, Mode mode, Encoding& e, Machine& m) : random_(random), mode_(mode), e_(e), m_(m) {}

  bool operand(const ZydisDecodedOperand& o) {
    if (o.type != ZYDIS_OPERAND_TYPE_MEMORY || o.mem.type != ZYDIS_MEMOP_TYPE_MEM) return true;
    const std::uint64_t size = std::max<std::uint64_t>(o.size / 8, 1);
    std::uint64_t target = pick_address(random_, e_, size);
    const ZydisDecodedOperandMem& mem = o.mem;
    const std::uint64_t disp = mem.disp.has_displacement ? static_cast<std::uint64_t>(mem.disp.value) : 0;
    if (mem.base == ZYDIS_REGISTER_RIP || mem.base == ZYDIS_REGISTER_EIP) {
      if (target - kData >= kDataSize) target = kData;
      return patch_disp(target - kCode - e_.info.length, target);
    }
    const int base = number(mem.base);
    const int index = number(mem.index);
    if (base < 0 && index < 0) {
      if (target - kData >= kDataSize) target = kData;
      return patch_disp(target, target);
    }
    const std::uint64_t scale = std::max<std::uint64_t>(mem.scale, 1);
    if (base >= 0 && base == index) {
      if (!assigned_[base]) set(base, (target - disp) / (1 + scale));
    } else if (base >= 0) {
      if (index >= 0 && assigned_[base]) return true;
      const std::uint64_t offset = index >= 0 ? m_.regs.gpr[index] * scale : 0;
      if (!assigned_[base]) set(base, target - disp - offset);
      if (index >= 0) assigned_[index] = true;
    } else if (!assigned_[index]) {
      set(index, (target - disp) / scale);
    }
    return true;
  }

  void set(int reg, std::uint64_t value) {
    // With 32-bit addresses the upper half does not matter.
    if (e_.info.address_width == 32 && mode_ == Mode::k64 && reg != kRsp) {
      value = (value & 0xffffffff) | random_.next() << 32;
    }
    m_.regs.gpr[reg] = value;
    assigned_[reg] = true;
  }
  [[nodiscard]] bool assigned(int reg) const { return assigned_[reg]; }

  // Linear address of an aimed operand.
  [[nodiscard]] std::uint64_t address(const ZydisDecodedOperand& o) const {
    ZydisRegisterContext context{};
    for (unsigned n = 0; n < 16; ++n) context.values[ZYDIS_REGISTER_RAX + n] = m_.regs.gpr[n];
    for (unsigned n = 0; n < 8; ++n) context.values[ZYDIS_REGISTER_EAX + n] = m_.regs.gpr[n] & 0xffffffff;
    for (unsigned n = 8; n < 16; ++n) context.values[ZYDIS_REGISTER_EAX + n] = m_.regs.gpr[n] & 0xffffffff;
    ZyanU64 result = 0;
    if (!ZYAN_SUCCESS(ZydisCalcAbsoluteAddressEx(&e_.info, &o, kCode, &context, &result))) return 0;
    return result;
  }
  // Bytes in the data pages at a linear address, or nullptr.
  [[nodiscard]] std::byte* data(std::uint64_t at, std::size_t size) const {
    if (at < kData || at - kData > kDataSize - size) return nullptr;
    return m_.data.data() + (at - kData);
  }

  static int number(ZydisRegister reg) {
    if (reg == ZYDIS_REGISTER_NONE) return -1;
    const ZydisRegister full = ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, reg);
    return full >= ZYDIS_REGISTER_RAX && full <= ZYDIS_REGISTER_R15 ? full - ZYDIS_REGISTER_RAX : -1;
  }

 private:
  bool patch_disp(std::uint64_t value, std::uint64_t target) {
    const auto& raw = e_.info.raw.disp;
    if (raw.size == 64) {
      store<std::uint64_t>(&e_.bytes[raw.offset], target);
    } else if (raw.size == 32) {
      store<std::uint32_t>(&e_.bytes[raw.offset], static_cast<std::uint32_t>(value));
    } else {
      return raw.size == 16;  // 16-bit addresses reach nothing: both fault
    }
    return true;
  }

  Random& random_;
  Mode mode_;
  Encoding& e_;
  Machine& m_;
  std::bitset<16> assigned_;
};

bool is_branch(const Encoding& e) {
  const ZydisInstructionCategory c = e.info.meta.category;
  return c == ZYDIS_CATEGORY_COND_BR || c == ZYDIS_CATEGORY_UNCOND_BR || c == ZYDIS_CATEGORY_CALL ||
         c == ZYDIS_CATEGORY_RET;
}

bool aim_branch(Random& random, Mode mode, Encoding& e, Machine& m, Aim& aimed) {
  if (e.info.raw.imm[0].is_relative != ZYAN_FALSE) {
    const std::uint64_t distance = kTaken - kCode - e.info.length;
    const auto& raw = e.info.raw.imm[0];
    if (raw.size == 8) e.bytes[raw.offset] = static_cast<std::uint8_t>(distance);
    if (raw.size == 16) return true;  // into the first 64 KiB, from anywhere
    if (raw.size == 32) store<std::uint32_t>(&e.bytes[raw.offset], static_cast<std::uint32_t>(distance));
    return raw.size == 8 || raw.size == 32;
  }
  const std::uint64_t target = random.one_in(16) && mode == Mode::k64 ? 0x8000000000001234 : kTaken;
  const std::size_t size = mode == Mode::k64 ? 8 : 4;
  std::byte* at = nullptr;
  if (e.info.mnemonic == ZYDIS_MNEMONIC_RET) {
    at = aimed.data(m.regs.gpr[kRsp], size);
  } else if (e.operands[0].type == ZYDIS_OPERAND_TYPE_REGISTER) {
    const int reg = Aim::number(e.operands[0].reg.value);
    if (reg == kRsp) return false;
    aimed.set(reg, target);
    return true;
  } else {
    at = aimed.data(aimed.address(e.operands[0]), size);
  }
  // Out of the pages, the access faults; across their end it does too.
  if (at != nullptr) std::memcpy(at, &target, size);
  return true;
}

}  // namespace

Machine random_machine(Random& random) {
  Machine m;
  m.regs = initial_registers();
  for (std::uint64_t& r : m.regs.gpr) r = random.value();
  m.regs.rflags = 0x202 | (random.next() & (kStatusFlags | kFlagDf));
  for (std::size_t n = 0; n < m.data.size(); n += 8) store<std::uint64_t>(m.data.data() + n, random.next());
  return m;
}

bool aim(Random& random, Mode mode, Encoding& e, Machine& m) {
  Aim aimed(random, mode, e, m);
  auto& gpr = m.regs.gpr;
  switch (e.info.mnemonic) {
    case ZYDIS_MNEMONIC_ENTER:
      aimed.set(kRsp, kData + kPage + random.below(2048));
      aimed.set(kRbp, kData + kPage + random.below(2048));
      break;
    case ZYDIS_MNEMONIC_LEAVE:
      aimed.set(kRbp, pick_address(random, e, 8));
      break;
    case ZYDIS_MNEMONIC_XLAT:
      aimed.set(kRbx, pick_address(random, e, 1) - (gpr[kRax] & 0xff));
      break;
    case ZYDIS_MNEMONIC_BT:
    case ZYDIS_MNEMONIC_BTS:
    case ZYDIS_MNEMONIC_BTR:
    case ZYDIS_MNEMONIC_BTC:
      if (e.operands[0].type == ZYDIS_OPERAND_TYPE_MEMORY && e.operands[1].type == ZYDIS_OPERAND_TYPE_REGISTER) {
        // An address that is also the number leads anywhere.
        const int number = Aim::number(e.operands[1].reg.value);
        if (number == Aim::number(e.operands[0].mem.base) || number == Aim::number(e.operands[0].mem.index))
          return false;
      }
      if (e.operands[1].type == ZYDIS_OPERAND_TYPE_REGISTER && random.below(8) != 0) {
        const int reg = Aim::number(e.operands[1].reg.value);
        gpr[reg] = random.below(8192) - 4096;
      }
      break;
    case ZYDIS_MNEMONIC_DIV:
      if (random.below(3) != 0) gpr[kRdx] = random.below(4), gpr[kRax] &= ~std::uint64_t{0xf000};
      break;
    case ZYDIS_MNEMONIC_IDIV:
      if (random.below(3) != 0) gpr[kRdx] = (gpr[kRax] >> 63) != 0 ? ~std::uint64_t{0} : 0;
      break;
    case ZYDIS_MNEMONIC_LOOP:
    case ZYDIS_MNEMONIC_LOOPE:
    case ZYDIS_MNEMONIC_LOOPNE:
    case ZYDIS_MNEMONIC_JCXZ:
    case ZYDIS_MNEMONIC_JECXZ:
    case ZYDIS_MNEMONIC_JRCXZ:
      if (random.one_in(2)) gpr[kRcx] = random.below(3) | (random.one_in(2) ? random.next() << 32 : 0);
      break;
    default:
      break;
  }
  if (e.info.meta.category == ZYDIS_CATEGORY_STRINGOP) {
    const std::uint64_t most = random.one_in(4) ? 3000 : 40;
    gpr[kRcx] = random.below(most);
    if (e.info.address_width == 32) gpr[kRcx] |= random.next() << 32;
  }
  if (e.info.mnemonic != ZYDIS_MNEMONIC_XLAT) {
    for (unsigned n = 0; n < e.info.operand_count; ++n) {
      if (!aimed.operand(e.operands[n])) return false;
    }
  }
  if (!decode(mode, e)) return false;  // with its new displacement
  if (is_branch(e) && !aim_branch(random, mode, e, m, aimed)) return false;
  if (!decode(mode, e)) return false;

  // Comparisons that come out equal.
  if (e.info.mnemonic == ZYDIS_MNEMONIC_CMPXCHG && random.one_in(2)) {
    const ZydisDecodedOperand& o = e.operands[0];
    if (o.type == ZYDIS_OPERAND_TYPE_REGISTER) {
      const int reg = Aim::number(o.reg.value);
      if (!aimed.assigned(kRax)) gpr[kRax] = gpr[reg];
    } else if (const std::byte* at = aimed.data(aimed.address(o), 8); at != nullptr && !aimed.assigned(kRax)) {
      gpr[kRax] = load<std::uint64_t>(at);
    }
  }
  if ((e.info.mnemonic == ZYDIS_MNEMONIC_CMPXCHG8B || e.info.mnemonic == ZYDIS_MNEMONIC_CMPXCHG16B) &&
      random.one_in(2)) {
    const std::size_t half = e.info.mnemonic == ZYDIS_MNEMONIC_CMPXCHG8B ? 4 : 8;
    std::byte* at = aimed.data(aimed.address(e.operands[0]), 2 * half);
    if (at != nullptr) {
      std::memcpy(at, &gpr[kRax], half);
      std::memcpy(at + half, &gpr[kRdx], half);
    }
  }
  return true;
}

std::uint64_t undefined_flags(const Encoding& e, const Machine& before) {
  std::uint64_t undefined = e.info.cpu_flags != nullptr ? e.info.cpu_flags->undefined & kStatusFlags : 0;
  unsigned count_operand = 1;
  switch (e.info.mnemonic) {
    case ZYDIS_MNEMONIC_SHLD:
    case ZYDIS_MNEMONIC_SHRD:
      count_operand = 2;
      [[fallthrough]];
    case ZYDIS_MNEMONIC_SHL:
    case ZYDIS_MNEMONIC_SHR:
    case ZYDIS_MNEMONIC_SAR:
    case ZYDIS_MNEMONIC_ROL:
    case ZYDIS_MNEMONIC_ROR:
    case ZYDIS_MNEMONIC_RCL:
    case ZYDIS_MNEMONIC_RCR: {
      const ZydisDecodedOperand& c = e.operands[count_operand];
      const unsigned bits = e.operands[0].size;
      const std::uint64_t count =
          (c.type == ZYDIS_OPERAND_TYPE_IMMEDIATE ? c.imm.value.u : before.regs.gpr[kRcx]) & (bits == 64 ? 63 : 31);
      const bool rotates = e.info.mnemonic == ZYDIS_MNEMONIC_ROL || e.info.mnemonic == ZYDIS_MNEMONIC_ROR ||
                           e.info.mnemonic == ZYDIS_MNEMONIC_RCL || e.info.mnemonic == ZYDIS_MNEMONIC_RCR;
      undefined = 0;
      if (count != 0 && !rotates) undefined |= kFlagAf;
      if (count > 1) undefined |= kFlagOf;
      if (count >= bits && !rotates && e.info.mnemonic != ZYDIS_MNEMONIC_SAR) undefined |= kFlagCf;
      if (count > bits && count_operand == 2) undefined = kStatusFlags;
      break;
    }
    default:
      break;
  }
  return undefined;
}

std::string difference(const Machine& native, const Machine& engine, std::uint64_t ignored_flags) {
  std::string text;
  if (native.exception != engine.exception || native.error != engine.error || native.cr2 != engine.cr2) {
    text += fmt::format("  exception: native {} error {:#x} cr2 {:#x}, engine {} error {:#x} cr2 {:#x}\n",
                        native.exception, native.error, native.cr2, engine.exception, engine.error, engine.cr2);
  }
  if (native.rip != engine.rip) text += fmt::format("  rip: native {:#x}, engine {:#x}\n", native.rip, engine.rip);
  for (std::size_t n = 0; n < native.regs.gpr.size(); ++n) {
    if (native.regs.gpr[n] == engine.regs.gpr[n]) continue;
    text += fmt::format("  register {}: native {:#x}, engine {:#x}\n", n, native.regs.gpr[n], engine.regs.gpr[n]);
  }
  const std::uint64_t compared = (kStatusFlags | kFlagDf) & ~ignored_flags;
  if (((native.regs.rflags ^ engine.regs.rflags) & compared) != 0) {
    text += fmt::format("  flags: native {:#x}, engine {:#x}, compared {:#x}\n", native.regs.rflags & compared,
                        engine.regs.rflags & compared, compared);
  }
  for (std::size_t n = 0; n < native.data.size(); ++n) {
    if (native.data[n] == engine.data[n]) continue;
    text += fmt::format("  byte at {:#x}: native {:#x}, engine {:#x}\n", kData + n,
                        static_cast<unsigned>(native.data[n]), static_cast<unsigned>(engine.data[n]));
    break;
  }
  return text;
}

std::string describe(Mode mode, const Encoding& e, const Machine& before) {
  ZydisFormatter formatter;
  ZydisFormatterInit(&formatter, ZYDIS_FORMATTER_STYLE_INTEL);
  std::array<char, 128> line{};
  ZydisFormatterFormatInstruction(&formatter, &e.info, e.operands.data(), e.info.operand_count_visible, line.data(),
                                  line.size(), kCode, nullptr);
  std::string text = fmt::format("{}-bit ", mode == Mode::k64 ? 64 : 32);
  for (const std::uint8_t b : e.code()) text += fmt::format("{:02x} ", b);
  text += fmt::format(" {}\n  flags {:#x}\n", line.data(), before.regs.rflags);
  for (std::size_t n = 0; n < before.regs.gpr.size(); ++n) {
    text += fmt::format("{} {:016x}{}", n % 4 == 0 ? " " : "", before.regs.gpr[n], n % 4 == 3 ? "\n" : "");
  }
  return text;
}

}  // namespace sevisor::cpu_diff
