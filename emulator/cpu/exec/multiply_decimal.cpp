// Decimal adjustment, outside 64-bit mode: DAA, DAS, AAA, AAS, AAM, AAD. Algorithms: APM vol. 3.
#include "emulator/cpu/exec/forms.hpp"
#include "emulator/cpu/exec/multiply.hpp"

namespace sevisor::emulator {

namespace {

constexpr std::uint8_t kLowDigit = 0xf;

template <bool kSubtract>
const Op* adjust_packed(Core& core, const Op* op) {
  const std::uint8_t before = core.reg<std::uint8_t>(kOffsetRax);
  const bool carry_before = core.flags.cf();
  const bool low = (before & kLowDigit) > 9 || core.flags.af();
  const bool high = before > 0x99 || carry_before;
  const unsigned by = (low ? 0x06U : 0U) + (high ? 0x60U : 0U);
  const auto al = static_cast<std::uint8_t>(kSubtract ? before - by : before + by);
  // The correction of the low digit may itself borrow.
  const bool borrow = kSubtract && low && before < 6;
  core.set_reg<std::uint8_t>(kOffsetRax, al);
  core.flags.set_result<std::uint8_t>(al, high || borrow, false, low);
  return next(core, op);
}

template <bool kSubtract>
const Op* adjust_unpacked(Core& core, const Op* op) {
  const std::uint16_t before = core.reg<std::uint16_t>(kOffsetRax);
  const bool adjust = (before & kLowDigit) > 9 || core.flags.af();
  constexpr unsigned kDigitAndTen = 0x106;
  const unsigned by = adjust ? kDigitAndTen : 0;
  const auto ax = static_cast<std::uint16_t>(kSubtract ? before - by : before + by);
  core.set_reg<std::uint16_t>(kOffsetRax, ax & 0xff0f);
  core.flags.set_result<std::uint8_t>(static_cast<std::uint8_t>(ax & kLowDigit), adjust, false, adjust);
  return next(core, op);
}

// imm: the base, 10 in the assembler's form.
const Op* split_digits(Core& core, const Op* op) {
  const auto base = static_cast<std::uint8_t>(op->imm);
  if (base == 0) return core.fault(kVectorDe);
  const std::uint8_t al = core.reg<std::uint8_t>(kOffsetRax);
  core.set_reg<std::uint16_t>(kOffsetRax, static_cast<std::uint16_t>((al / base) << 8 | al % base));
  core.flags.set_logic<std::uint8_t>(static_cast<std::uint8_t>(al % base));
  return next(core, op);
}
const Op* join_digits(Core& core, const Op* op) {
  const std::uint16_t ax = core.reg<std::uint16_t>(kOffsetRax);
  const auto al = static_cast<std::uint8_t>(ax + (ax >> 8) * static_cast<std::uint8_t>(op->imm));
  core.set_reg<std::uint16_t>(kOffsetRax, al);
  core.flags.set_logic<std::uint8_t>(al);
  return next(core, op);
}

template <Handler kHandler>
bool select_fixed(Insn& insn, Op& op) {
  if (insn.is_imm(0)) op.imm = insn.op(0).imm.value.u;
  op.fn = kHandler;
  return true;
}

}  // namespace

void add_decimal(SelectorTable& table) {
  table[ZYDIS_MNEMONIC_DAA] = select_fixed<adjust_packed<false>>;
  table[ZYDIS_MNEMONIC_DAS] = select_fixed<adjust_packed<true>>;
  table[ZYDIS_MNEMONIC_AAA] = select_fixed<adjust_unpacked<false>>;
  table[ZYDIS_MNEMONIC_AAS] = select_fixed<adjust_unpacked<true>>;
  table[ZYDIS_MNEMONIC_AAM] = select_fixed<split_digits>;
  table[ZYDIS_MNEMONIC_AAD] = select_fixed<join_digits>;
}

}  // namespace sevisor::emulator
