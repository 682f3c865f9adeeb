#include <algorithm>

#include "tests/cpu_diff/difference_rows.hpp"
#include "tests/cpu_diff/vector_state.hpp"

namespace sevisor::cpu_diff {

namespace {

std::size_t gathered_element(const Encoding& e) {
  if (is_one_of(e, {ZYDIS_MNEMONIC_VPGATHERDD, ZYDIS_MNEMONIC_VPGATHERQD, ZYDIS_MNEMONIC_VGATHERDPS,
                    ZYDIS_MNEMONIC_VGATHERQPS}))
    return 4;
  if (is_one_of(e, {ZYDIS_MNEMONIC_VPGATHERDQ, ZYDIS_MNEMONIC_VPGATHERQQ, ZYDIS_MNEMONIC_VGATHERDPD,
                    ZYDIS_MNEMONIC_VGATHERQPD}))
    return 8;
  return 0;
}

// A byte of YMM n.
std::byte& ymm_byte(Registers& r, std::size_t n, std::size_t at) {
  return at < 16 ? r.fx[kFxXmm + n * 16 + at] : r.ymm_high[n][at - 16];
}
std::byte ymm_byte(const Registers& r, std::size_t n, std::size_t at) {
  return at < 16 ? r.fx[kFxXmm + n * 16 + at] : r.ymm_high[n][at - 16];
}

}  // namespace

void misaligned_sha(const Ran& ran, const Machine& native, Machine& engine) {
  constexpr std::uint64_t kAlignment = 16;
  const ZydisDecodedOperand* memory = memory_operand(ran.e);
  if (ran.e.info.meta.isa_ext != ZYDIS_ISA_EXT_SHA || memory == nullptr) return;
  if (operand_address(ran.e, *memory, ran.before) % kAlignment == 0) return;
  if (native.exception == kGeneralProtection) engine = native;
}

void misaligned_stack_area(const Ran& ran, const Machine& native, Machine& engine) {
  const bool area = is_one_of(
      ran.e, {ZYDIS_MNEMONIC_XSAVE, ZYDIS_MNEMONIC_XSAVE64, ZYDIS_MNEMONIC_XSAVEC, ZYDIS_MNEMONIC_XSAVEC64,
              ZYDIS_MNEMONIC_XSAVEOPT, ZYDIS_MNEMONIC_XSAVEOPT64, ZYDIS_MNEMONIC_XRSTOR, ZYDIS_MNEMONIC_XRSTOR64});
  if (!area || ran.mode != Mode::k64) return;
  constexpr std::uint64_t kAlignment = 64;
  const std::uint64_t at = operand_address(ran.e, ran.e.operands[0], ran.before);
  if (at % kAlignment == 0 || at == extended_from(kSignOf48, at)) return;
  if (native.exception == kGeneralProtection && engine.exception == kStackFault) engine.exception = kGeneralProtection;
}

void wide_element_in_32_bits(const Ran& ran, const Machine& native, Machine& engine) {
  if (ran.mode == Mode::k64 || !is_one_of(ran.e, {ZYDIS_MNEMONIC_VPEXTRD, ZYDIS_MNEMONIC_VPINSRD})) return;
  if (ran.e.info.raw.vex.W != 0 && engine.exception == kInvalidOpcode) engine = native;
}

void half_precision_store(const Ran& ran, const Machine& native, Machine& engine) {
  if (ran.e.info.mnemonic != ZYDIS_MNEMONIC_VCVTPS2PH || memory_operand(ran.e) == nullptr) return;
  if (engine.exception == kNoException || native.exception == kNoException) return;
  if (native.exception == kFloatingPoint && engine.exception != kFloatingPoint) engine = native;
  std::copy_n(native.regs.fx.begin() + kFxMxcsr, 4, engine.regs.fx.begin() + kFxMxcsr);
}

void broken_gather(const Ran& ran, const Machine& native, Machine& engine) {
  const std::size_t element = gathered_element(ran.e);
  if (element == 0 || native.exception == kNoException) return;
  constexpr std::size_t kYmmBytes = 32;
  const std::size_t length = ran.e.info.avx.vector_length / 8U;
  const auto number = [&](unsigned operand) {
    return static_cast<std::size_t>(static_cast<std::uint8_t>(ZydisRegisterGetId(ran.e.operands[operand].reg.value)));
  };
  const std::size_t mask = number(2);
  // Of an element of the mask, its sign says what is still to be loaded.
  for (std::size_t at = 0; at < length; at += element) {
    const std::size_t top = at + element - 1;
    const auto changed = ymm_byte(native.regs, mask, top) ^ ymm_byte(engine.regs, mask, top);
    if ((changed & std::byte{0x80}) != std::byte{0}) continue;
    for (std::size_t i = at; i <= top; ++i) ymm_byte(engine.regs, mask, i) = ymm_byte(native.regs, mask, i);
  }
  for (const std::size_t n : {mask, number(0)}) {
    for (std::size_t at = length; at < kYmmBytes; ++at) ymm_byte(engine.regs, n, at) = ymm_byte(native.regs, n, at);
  }
}

bool permutes_without_w(const Encoding& e) {
  constexpr std::uint8_t kVex3 = 0xc4;
  constexpr std::uint8_t kMap = 0x1f;
  constexpr std::uint8_t kMap0F3A = 3;
  constexpr std::uint8_t kLengthAndPrefix = 7;  // L, pp
  constexpr std::uint8_t k256With66 = 5;
  constexpr std::uint8_t kW = 0x80;
  return e.bytes[0] == kVex3 && (e.bytes[1] & kMap) == kMap0F3A &&
         (e.bytes[2] & (kW | kLengthAndPrefix)) == k256With66 && e.bytes[3] <= 1;
}

}  // namespace sevisor::cpu_diff
