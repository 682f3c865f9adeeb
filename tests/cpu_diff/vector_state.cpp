#include "tests/cpu_diff/vector_state.hpp"

#include <cstring>
#include <fmt/format.h>

#include "base/bytes.hpp"
#include "tests/cpu_diff/processor.hpp"

namespace sevisor::cpu_diff {

namespace {

// Offsets in the FXSAVE64 image (APM vol. 2, 11.5.5).
constexpr std::size_t kFcw = 0;
constexpr std::size_t kFsw = 2;
constexpr std::size_t kFtw = 4;
constexpr std::size_t kFop = 6;
constexpr std::size_t kFip = 8;
constexpr std::size_t kFdp = 16;
constexpr std::size_t kSt = 32;
constexpr std::size_t kStSize = 10;
constexpr std::uint16_t kX87Flags = 0x3f;
constexpr std::uint16_t kX87Summary = 0x8080;  // ES and B

using Vector = std::array<std::byte, 32>;

std::uint32_t single(Random& random) {
  constexpr std::array<std::uint32_t, 20> kSpecial = {0,          0x3f800000, 0x00800000, 0x007fffff, 0x00000001,
                                                      0x7f7fffff, 0x7f800000, 0x7fc00000, 0x7f800001, 0x7fffffff,
                                                      0x7fa12345, 0x3f000000, 0x3fc00000, 0x40200000, 0x4f000000,
                                                      0x4effffff, 0x5f000000, 0x5effffff, 0x33800000, 0x47000000};
  const std::uint32_t sign = random.one_in(2) ? 0x80000000 : 0;
  switch (random.below(3)) {
    case 0:
      return sign | kSpecial[random.below(kSpecial.size())];
    case 1:
      return sign | static_cast<std::uint32_t>((127 - 40 + random.below(80)) << 23 | (random.next() & 0x7fffff));
    default:
      return static_cast<std::uint32_t>(random.next());
  }
}
std::uint64_t wide(Random& random) {
  constexpr std::array<std::uint64_t, 20> kSpecial = {
      0,
      0x3ff0000000000000,
      0x0010000000000000,
      0x000fffffffffffff,
      1,
      0x7fefffffffffffff,
      0x7ff0000000000000,
      0x7ff8000000000000,
      0x7ff0000000000001,
      0x7fffffffffffffff,
      0x7ff4123456789abc,
      0x3fe0000000000000,
      0x3ff8000000000000,
      0x4004000000000000,
      0x41e0000000000000,
      0x41dfffffffc00000,
      0x43e0000000000000,
      0x43dfffffffffffff,
      0x36a0000000000000,
      0x47efffffe0000000,
  };
  const std::uint64_t sign = random.one_in(2) ? 0x8000000000000000 : 0;
  switch (random.below(3)) {
    case 0:
      return sign | kSpecial[random.below(kSpecial.size())];
    case 1:
      return sign | (1023 - 70 + random.below(140)) << 52 | (random.next() & 0xfffffffffffff);
    default:
      return random.next();
  }
}
// Sign, exponent and the explicit leading bit: also what no processor makes since the 80387.
std::array<std::byte, kStSize> extended(Random& random) {
  constexpr std::array<std::uint16_t, 16> kExponents = {0,      0,      1,      2,      0x3fff, 0x3fff, 0x3ffe, 0x403e,
                                                        0x403d, 0x401e, 0x7ffe, 0x7fff, 0x7fff, 0x3c01, 0x43fe, 0x3f81};
  constexpr std::array<std::uint64_t, 8> kMantissas = {0, 0x8000000000000000, 0xc000000000000000, 0x8000000000000001,
                                                       1, 0xffffffffffffffff, 0xa000000000000000, 0x7fffffffffffffff};
  std::uint16_t exponent = kExponents[random.below(kExponents.size())];
  if (random.one_in(2)) exponent = static_cast<std::uint16_t>(0x3fff - 70 + random.below(140));
  if (random.one_in(8)) exponent = static_cast<std::uint16_t>(random.next() & 0x7fff);
  if (random.one_in(2)) exponent |= 0x8000;
  std::uint64_t mantissa = random.next() | (random.one_in(8) ? 0 : 0x8000000000000000);
  if (random.one_in(3)) mantissa = kMantissas[random.below(kMantissas.size())];
  std::array<std::byte, kStSize> out{};
  store(out.data(), mantissa);
  store(out.data() + 8, exponent);
  return out;
}

enum class Style : std::uint8_t { kSingle, kDouble, kInteger, kBytes, kExtended };

void fill(Random& random, Style style, std::span<std::byte> to) {
  std::size_t n = 0;
  while (n < to.size()) {
    switch (style) {
      case Style::kSingle:
        store(&to[n], single(random));
        n += 4;
        break;
      case Style::kDouble:
        store(&to[n], wide(random));
        n += 8;
        break;
      case Style::kInteger:
        store(&to[n], random.value());
        n += 8;
        break;
      case Style::kBytes:
        store(&to[n],
              static_cast<std::uint8_t>(random.one_in(4) ? 0 : random.below(256) & (random.one_in(2) ? 0x83 : 0xff)));
        n += 1;
        break;
      case Style::kExtended: {
        const auto value = extended(random);
        std::memcpy(&to[n], value.data(), std::min(value.size(), to.size() - n));
        n += 16;
        break;
      }
    }
  }
}

Style any_style(Random& random) { return static_cast<Style>(random.below(5)); }

// MM, which only AMD's processors have: 16-byte operands need no alignment. Reserved elsewhere.
constexpr std::uint32_t kMm = 0x20000;
bool host_is_amd() { return host_processor().vendor() == Vendor::kAmd; }
std::uint32_t mxcsr_bits() { return host_is_amd() ? ~std::uint32_t{0} : ~kMm; }

std::uint32_t random_mxcsr(Random& random) {
  constexpr std::uint32_t kMasks = 0x1f80;
  std::uint32_t value = kMasks;
  if (random.one_in(3)) value = static_cast<std::uint32_t>(random.next()) & kMasks;
  if (random.one_in(2)) value |= static_cast<std::uint32_t>(random.next()) & 0x6000;  // rounding
  if (random.one_in(4)) value |= static_cast<std::uint32_t>(random.next()) & 0x8040;  // FTZ, DAZ
  if (random.one_in(4)) value |= static_cast<std::uint32_t>(random.next()) & 0x3f;
  if (random.one_in(8)) value |= kMm & mxcsr_bits();
  return value;
}

void random_x87(Random& random, Registers& r) {
  constexpr std::array<unsigned, 3> kPrecision = {0, 2, 3};
  unsigned fcw = 0x40 | kX87Flags | kPrecision[random.one_in(3) ? random.below(3) : 2] << 8;
  if (random.one_in(2)) fcw |= static_cast<unsigned>(random.below(4)) << 10;
  if (random.one_in(3)) fcw = (fcw & ~unsigned{kX87Flags}) | static_cast<unsigned>(random.below(64));
  auto fsw = static_cast<unsigned>(random.below(8)) << 11 | (random.next() & 0x4700);
  if (random.one_in(6)) {
    fsw |= static_cast<unsigned>(random.below(64));
    if (random.one_in(4)) fsw |= 0x40;  // SF
    if (!random.one_in(3)) fcw |= fsw & kX87Flags;
    if ((fsw & ~fcw & kX87Flags) != 0) fsw |= kX87Summary;
  }
  std::uint8_t ftw = 0xff;
  if (random.one_in(3)) ftw = random.byte();
  store(r.fx.data() + kFcw, static_cast<std::uint16_t>(fcw));
  store(r.fx.data() + kFsw, static_cast<std::uint16_t>(fsw));
  store(r.fx.data() + kFtw, ftw);
  // Intel's processors do too many things with these.
  if (host_is_amd()) {
    constexpr std::uint64_t kUserHalf = 0x7fffffffffff;
    store(r.fx.data() + kFop, static_cast<std::uint16_t>(random.next() & 0x7ff));
    store(r.fx.data() + kFip, random.next() & kUserHalf);
    store(r.fx.data() + kFdp, random.next() & kUserHalf);
  }
  for (std::size_t n = 0; n < 8; ++n) {
    const auto value = extended(random);
    std::memcpy(r.fx.data() + kSt + n * 16, value.data(), value.size());
  }
}

}  // namespace

void randomize_vector(Random& random, Machine& machine) {
  Registers& r = machine.regs;
  const Style style = any_style(random);
  for (std::size_t n = 0; n < 16; ++n) {
    Vector v;
    fill(random, random.one_in(4) ? any_style(random) : style, v);
    std::memcpy(r.fx.data() + kFxXmm + n * 16, v.data(), 16);
    if (host_has_ymm()) std::memcpy(r.ymm_high[n].data(), v.data() + 16, 16);
  }
  store(r.fx.data() + kFxMxcsr, random_mxcsr(random));
  random_x87(random, r);
  std::array<std::byte, 512> pool;
  fill(random, style, pool);
  for (std::size_t at = 0; at < kDataSize; at += pool.size())
    std::memcpy(machine.data.data() + at, pool.data(), pool.size());
}

std::uint64_t operand_address(const Encoding& e, const ZydisDecodedOperand& operand, const Machine& machine) {
  ZydisRegisterContext context{};
  for (unsigned n = 0; n < 16; ++n) {
    context.values[ZYDIS_REGISTER_RAX + n] = machine.regs.gpr[n];
    context.values[ZYDIS_REGISTER_EAX + n] = machine.regs.gpr[n] & 0xffffffff;
  }
  ZyanU64 result = 0;
  return ZYAN_SUCCESS(ZydisCalcAbsoluteAddressEx(&e.info, &operand, kCode, &context, &result)) ? result : 0;
}

namespace {

std::byte* data_at(Machine& machine, std::uint64_t at, std::size_t size) {
  const bool inside = at >= kData && size <= kDataSize && at - kData <= kDataSize - size;
  return inside ? machine.data.data() + (at - kData) : nullptr;
}

// Moves an operand of which only the base register is known to `target`. False: it has no such register.
bool move_operand(const Encoding& e, const ZydisDecodedOperand& o, Machine& machine, std::uint64_t target) {
  const ZydisRegister full = ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, o.mem.base);
  if (full < ZYDIS_REGISTER_RAX || full > ZYDIS_REGISTER_R15 || o.mem.index != ZYDIS_REGISTER_NONE) return false;
  machine.regs.gpr[full - ZYDIS_REGISTER_RAX] += target - operand_address(e, o, machine);
  return true;
}

// XSAVE's header, and an image that XRSTOR and FXRSTOR accept.
void prepare_image(Random& random, const Encoding& e, const ZydisDecodedOperand& o, Machine& machine) {
  constexpr std::size_t kHeader = 512;
  constexpr std::size_t kMost = 832;
  constexpr std::uint64_t kPage = 4096;
  constexpr std::uint64_t kComponents = 7;
  constexpr std::uint64_t kCompacted = std::uint64_t{1} << 63;
  const std::uint64_t end = kData + kDataSize;
  std::uint64_t at = kData + random.below(kPage) / 64 * 64;
  if (random.one_in(8)) at = end - (random.one_in(2) ? kMost : 512 + 64) + (random.one_in(2) ? 64 : 0);
  if (random.one_in(16)) at += random.below(64);
  static_cast<void>(move_operand(e, o, machine, at));
  at = operand_address(e, o, machine);
  const bool has_avx = host_has_ymm();
  std::uint64_t mask = random.next() & kComponents & (has_avx ? 7 : 3);
  if (random.one_in(3)) mask = has_avx ? 7 : 3;
  machine.regs.gpr[0] = (machine.regs.gpr[0] & ~std::uint64_t{0xffffffff}) | mask;
  machine.regs.gpr[2] &= ~std::uint64_t{0xffffffff};
  if (std::byte* mxcsr = data_at(machine, at + kFxMxcsr, 4)) {
    store(mxcsr, random.one_in(16) ? static_cast<std::uint32_t>(random.next()) & mxcsr_bits() : random_mxcsr(random));
  }
  if (std::byte* head = data_at(machine, at, 160)) {
    Registers r;
    random_x87(random, r);
    if (host_is_amd() && random.one_in(4)) {  // pointers that are no addresses
      store(r.fx.data() + kFip, random.next());
      store(r.fx.data() + kFdp, random.next());
    }
    std::memcpy(head, r.fx.data(), kFxMxcsr);
    std::memcpy(head + kSt, r.fx.data() + kSt, 128);
  }
  std::byte* header = data_at(machine, at + kHeader, 64);
  if (header == nullptr) return;
  const bool compact = random.one_in(2);
  std::uint64_t comp = compact ? kCompacted | (random.next() & (has_avx ? 7 : 3)) : 0;
  std::uint64_t bv = random.next() & (has_avx ? 7 : 3);
  if (compact) bv &= comp;
  if (random.one_in(32)) bv |= std::uint64_t{1} << (20 + random.below(43));
  if (random.one_in(32)) comp |= std::uint64_t{1} << (20 + random.below(44));
  std::memset(header, 0, 64);
  if (random.one_in(32)) header[16 + random.below(48)] = std::byte{1};
  store(header, bv);
  store(header + 8, comp);
  // Components in their initial state.
  if (random.one_in(3)) {
    Registers fresh = initial_registers();
    if (random.one_in(2)) std::copy_n(fresh.fx.begin(), kFxMxcsr, machine.regs.fx.begin());
    if (random.one_in(2)) std::copy_n(fresh.fx.begin() + kSt, 128, machine.regs.fx.begin() + kSt);
    if (random.one_in(2))
      std::copy(fresh.fx.begin() + kFxXmm, fresh.fx.begin() + kFxXmm + 256, machine.regs.fx.begin() + kFxXmm);
    if (random.one_in(2)) machine.regs.ymm_high = fresh.ymm_high;
    if (random.one_in(2)) store(machine.regs.fx.data() + kFxMxcsr, std::uint32_t{0x1f80});
  }
}

// A gather's indices reach the data pages from its base.
void prepare_gather(Random& random, const Encoding& e, const ZydisDecodedOperand& o, Machine& machine) {
  const bool wide = e.info.mnemonic == ZYDIS_MNEMONIC_VPGATHERQD || e.info.mnemonic == ZYDIS_MNEMONIC_VPGATHERQQ ||
                    e.info.mnemonic == ZYDIS_MNEMONIC_VGATHERQPS || e.info.mnemonic == ZYDIS_MNEMONIC_VGATHERQPD;
  ZydisDecodedOperand base_only = o;
  base_only.mem.index = ZYDIS_REGISTER_NONE;
  base_only.mem.type = ZYDIS_MEMOP_TYPE_MEM;
  // Without a base register the displacement alone is where they start from, and it may lie among the host's mappings.
  static_cast<void>(move_operand(e, base_only, machine, kData + 1000 + random.below(4000)));
  const std::uint64_t base = operand_address(e, base_only, machine);
  Vector indices;
  for (std::size_t n = 0; n < indices.size(); n += wide ? 8 : 4) {
    const std::uint64_t target = kData + random.below(random.one_in(16) ? kDataSize + 4000 : kDataSize - 32);
    const auto index = static_cast<std::int64_t>(target - base) / o.mem.scale;
    if (wide) {
      store(&indices[n], index);
    } else {
      store(&indices[n], static_cast<std::int32_t>(index));
    }
  }
  const std::size_t number = static_cast<std::uint8_t>(ZydisRegisterGetId(o.mem.index));
  std::memcpy(machine.regs.fx.data() + kFxXmm + number * 16, indices.data(), 16);
  std::memcpy(machine.regs.ymm_high[number].data(), indices.data() + 16, 16);
}

bool is_image(const Encoding& e) {
  switch (e.info.meta.isa_ext) {
    case ZYDIS_ISA_EXT_XSAVE:
    case ZYDIS_ISA_EXT_XSAVEC:
    case ZYDIS_ISA_EXT_XSAVEOPT:
      return true;
    default:
      return e.info.meta.isa_set == ZYDIS_ISA_SET_FXSAVE || e.info.meta.isa_set == ZYDIS_ISA_SET_FXSAVE64;
  }
}

}  // namespace

void prepare_operand(Random& random, const Encoding& e, Machine& machine) {
  for (unsigned n = 0; n < e.info.operand_count; ++n) {
    const ZydisDecodedOperand& o = e.operands[n];
    if (o.type != ZYDIS_OPERAND_TYPE_MEMORY) continue;
    if (o.mem.type == ZYDIS_MEMOP_TYPE_VSIB) prepare_gather(random, e, o, machine);
    if (o.mem.type != ZYDIS_MEMOP_TYPE_MEM) continue;
    if (is_image(e)) {
      prepare_image(random, e, o, machine);
      continue;
    }
    const std::size_t size = o.size / 8;
    std::byte* at = data_at(machine, operand_address(e, o, machine), size);
    if (at == nullptr || size > 32) continue;
    std::array<std::byte, 32> value;
    fill(random, any_style(random), value);
    if (e.info.mnemonic == ZYDIS_MNEMONIC_LDMXCSR || e.info.mnemonic == ZYDIS_MNEMONIC_VLDMXCSR) {
      const std::uint32_t any =
          random.one_in(8) ? static_cast<std::uint32_t>(random.next()) & mxcsr_bits() : random_mxcsr(random);
      store(value.data(), any);
    } else if (random.one_in(4)) {
      continue;
    }
    std::memcpy(at, value.data(), size);
  }
}

bool saves_image(const Encoding& encoding) {
  switch (encoding.info.mnemonic) {
    case ZYDIS_MNEMONIC_FXSAVE:
    case ZYDIS_MNEMONIC_FXSAVE64:
    case ZYDIS_MNEMONIC_XSAVE:
    case ZYDIS_MNEMONIC_XSAVE64:
    case ZYDIS_MNEMONIC_XSAVEC:
    case ZYDIS_MNEMONIC_XSAVEC64:
    case ZYDIS_MNEMONIC_XSAVEOPT:
    case ZYDIS_MNEMONIC_XSAVEOPT64:
      return true;
    default:
      return false;
  }
}

std::string vector_difference(Mode mode, const Machine& native, const Machine& engine) {
  std::string text;
  const auto compare = [&](const std::string& name, const std::byte* a, const std::byte* b, std::size_t size) {
    if (std::memcmp(a, b, size) == 0) return;
    text += fmt::format("  {}: native", name);
    for (std::size_t i = size; i-- > 0;)
      text += fmt::format("{}{:02x}", i % 4 == 3 ? " " : "", std::to_integer<unsigned>(a[i]));
    text += ", engine";
    for (std::size_t i = size; i-- > 0;)
      text += fmt::format("{}{:02x}", i % 4 == 3 ? " " : "", std::to_integer<unsigned>(b[i]));
    text += '\n';
  };
  const auto& a = native.regs;
  const auto& b = engine.regs;
  const std::size_t count = mode == Mode::k64 ? 16 : 8;
  for (std::size_t n = 0; n < count; ++n) {
    compare(fmt::format("xmm{}", n), a.fx.data() + kFxXmm + n * 16, b.fx.data() + kFxXmm + n * 16, 16);
    compare(fmt::format("upper half of ymm{}", n), a.ymm_high[n].data(), b.ymm_high[n].data(), 16);
  }
  compare("mxcsr", a.fx.data() + kFxMxcsr, b.fx.data() + kFxMxcsr, 4);
  compare("fcw", a.fx.data() + kFcw, b.fx.data() + kFcw, 2);
  compare("fsw", a.fx.data() + kFsw, b.fx.data() + kFsw, 2);
  compare("ftw", a.fx.data() + kFtw, b.fx.data() + kFtw, 1);
  compare("fop", a.fx.data() + kFop, b.fx.data() + kFop, 2);
  compare("fdp", a.fx.data() + kFdp, b.fx.data() + kFdp, 8);
  compare("fip", a.fx.data() + kFip, b.fx.data() + kFip, 8);
  for (std::size_t n = 0; n < 8; ++n) {
    compare(fmt::format("st{}", n), a.fx.data() + kSt + n * 16, b.fx.data() + kSt + n * 16, kStSize);
  }
  return text;
}

std::string describe_vector(const Machine& m) {
  const auto& fx = m.regs.fx;
  return fmt::format("  mxcsr {:#x} fcw {:#x} fsw {:#x} ftw {:#x}\n", load<std::uint32_t>(fx.data() + kFxMxcsr),
                     load<std::uint16_t>(fx.data() + kFcw), load<std::uint16_t>(fx.data() + kFsw),
                     load<std::uint8_t>(fx.data() + kFtw));
}

}  // namespace sevisor::cpu_diff
