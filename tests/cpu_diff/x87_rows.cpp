#include <algorithm>

#include "base/bytes.hpp"
#include "tests/cpu_diff/difference_rows.hpp"
#include "tests/cpu_diff/vector_state.hpp"

namespace sevisor::cpu_diff {

namespace {

// An x87 exception waits for the next instruction that looks.
bool pending(const Registers& r) {
  constexpr std::size_t kFsw = 2;
  constexpr unsigned kSummary = 0x80;
  return (load<std::uint16_t>(r.fx.data() + kFsw) & kSummary) != 0;
}

struct Field {
  std::size_t at, size;
};
constexpr Field kFop{6, 2};
constexpr Field kFip{8, 8};
constexpr Field kFdp{16, 8};

// Where an instruction stores pointers, from its memory operand's begin.
Field stored_pointers(const Encoding& e) {
  constexpr std::size_t kEnvironment = 12;  // FNSTENV, FNSAVE: behind three fields of 32 bits
  if (saves_image(e)) return {kFop.at, kFdp.at + kFdp.size - kFop.at};
  switch (e.info.mnemonic) {
    case ZYDIS_MNEMONIC_FNSTENV:
      return e.operands[0].size == 28 * 8 ? Field{kEnvironment, 16} : Field{kEnvironment / 2, 8};
    case ZYDIS_MNEMONIC_FNSAVE:
      return e.operands[0].size == 108 * 8 ? Field{kEnvironment, 16} : Field{kEnvironment / 2, 8};
    default:
      return {0, 0};
  }
}

// Copies `field` of what the instruction has stored.
void take_stored(const Ran& ran, const Field& field, const Machine& native, Machine& engine) {
  const std::uint64_t at = operand_address(ran.e, ran.e.operands[0], ran.before) - kData + field.at;
  if (at >= kDataSize || field.size > kDataSize - at) return;
  std::copy_n(&native.data[at], field.size, &engine.data[at]);
}

}  // namespace

void x87_store(const Ran& ran, const Machine& native, Machine& engine) {
  const bool stores = is_one_of(ran.e, {ZYDIS_MNEMONIC_FST, ZYDIS_MNEMONIC_FSTP, ZYDIS_MNEMONIC_FIST,
                                        ZYDIS_MNEMONIC_FISTP, ZYDIS_MNEMONIC_FISTTP, ZYDIS_MNEMONIC_FBSTP});
  if (!stores || memory_operand(ran.e) == nullptr) return;
  if (native.exception == kNoException && engine.exception != kNoException && pending(native.regs)) engine = native;
}

void x87_pointers(const Ran& /*ran*/, const Machine& native, Machine& engine) {
  const auto take = [&](const Field& f) { std::copy_n(&native.regs.fx[f.at], f.size, &engine.regs.fx[f.at]); };
  take(kFop);
  take(kFdp);
  if (!pending(native.regs)) return take(kFip);
  // How many bits of an address are kept that was loaded.
  constexpr unsigned kAbove = 16;
  const auto ours = load<std::uint64_t>(&engine.regs.fx[kFip.at]);
  const auto theirs = load<std::uint64_t>(&native.regs.fx[kFip.at]);
  if (((ours ^ theirs) << kAbove) == 0) take(kFip);
}

void stored_x87_pointers(const Ran& ran, const Machine& native, Machine& engine) {
  const Field field = stored_pointers(ran.e);
  if (field.size != 0 && native.exception == kNoException) take_stored(ran, field, native, engine);
}

void loaded_x87_pointers(const Ran& ran, const Machine& native, Machine& engine) {
  if (!is_one_of(ran.e, {ZYDIS_MNEMONIC_FXRSTOR64, ZYDIS_MNEMONIC_XRSTOR64})) return;
  const std::uint64_t image = operand_address(ran.e, ran.e.operands[0], ran.before) - kData;
  for (const Field& f : {kFip, kFdp}) {
    const std::uint64_t at = image + f.at;
    if (image >= kDataSize || at > kDataSize - f.size) continue;
    const auto loaded = load<std::uint64_t>(&ran.before.data[at]);
    const bool both = load<std::uint64_t>(&native.regs.fx[f.at]) == extended_from(kSignOf57, loaded) &&
                      load<std::uint64_t>(&engine.regs.fx[f.at]) == extended_from(kSignOf48, loaded);
    if (both) std::copy_n(&native.regs.fx[f.at], f.size, &engine.regs.fx[f.at]);
  }
}

void mxcsr_mask(const Ran& ran, const Machine& native, Machine& engine) {
  constexpr Field kMask{28, 4};
  constexpr std::uint32_t kMm = 0x20000;
  if (stored_pointers(ran.e).at != kFop.at || native.exception != kNoException) return;
  const std::uint64_t at = operand_address(ran.e, ran.e.operands[0], ran.before) - kData + kMask.at;
  if (at > kDataSize - kMask.size) return;
  if ((load<std::uint32_t>(&native.data[at]) ^ load<std::uint32_t>(&engine.data[at])) == kMm)
    take_stored(ran, kMask, native, engine);
}

}  // namespace sevisor::cpu_diff
