#include "tests/cpu_diff/vector.hpp"

#include <algorithm>
#include <cpuid.h>
#include <cstring>

#include "base/bytes.hpp"
#include "tests/cpu_diff/cpuid.hpp"
#include "tests/cpu_diff/vector_state.hpp"

namespace sevisor::cpu_diff {

namespace {

// XSAVE, and a bit of CPUID Fn0000_000D_EAX_x1 if not negative.
bool has_xsave(int bit) {
  std::array<unsigned, 4> r{};
  constexpr unsigned kOsxsave = 1U << 27;
  if (__get_cpuid(1, &r[0], &r[1], &r[2], &r[3]) == 0 || (r[2] & kOsxsave) == 0) return false;
  return bit < 0 || (__get_cpuid_count(13, 1, &r[0], &r[1], &r[2], &r[3]) != 0 && (r[0] >> bit & 1) != 0);
}

bool host_runs(ZydisISAExt extension) {
  switch (extension) {
    case ZYDIS_ISA_EXT_X87:
    case ZYDIS_ISA_EXT_MMX:
    case ZYDIS_ISA_EXT_SSE:
    case ZYDIS_ISA_EXT_SSE2:
      return true;
    case ZYDIS_ISA_EXT_SSE3:
      return __builtin_cpu_supports("sse3") != 0;
    case ZYDIS_ISA_EXT_SSSE3:
      return __builtin_cpu_supports("ssse3") != 0;
    case ZYDIS_ISA_EXT_SSE4:
      return __builtin_cpu_supports("sse4.2") != 0;
    case ZYDIS_ISA_EXT_SSE4A:
      return cpuid_bit(0x80000001, kEcx, 6);
    case ZYDIS_ISA_EXT_AES:
      return __builtin_cpu_supports("aes") != 0;
    case ZYDIS_ISA_EXT_PCLMULQDQ:
      return __builtin_cpu_supports("pclmul") != 0;
    case ZYDIS_ISA_EXT_XSAVE:
      return has_xsave(-1);
    case ZYDIS_ISA_EXT_XSAVEOPT:
      return has_xsave(0);
    case ZYDIS_ISA_EXT_XSAVEC:
      return has_xsave(1);
    case ZYDIS_ISA_EXT_SHA:
      return cpuid_bit(7, kEbx, 29);
    case ZYDIS_ISA_EXT_AVX:
      return __builtin_cpu_supports("avx") != 0 && __builtin_cpu_supports("pclmul") != 0;
    case ZYDIS_ISA_EXT_AVX2:
    case ZYDIS_ISA_EXT_AVX2GATHER:
      return __builtin_cpu_supports("avx2") != 0;
    case ZYDIS_ISA_EXT_FMA:
      return __builtin_cpu_supports("fma") != 0;
    case ZYDIS_ISA_EXT_F16C:
      return __builtin_cpu_supports("avx") != 0 && cpuid_bit(1, kEcx, 29);
    case ZYDIS_ISA_EXT_AVXAES:
      return __builtin_cpu_supports("avx") != 0 && __builtin_cpu_supports("aes") != 0;
    case ZYDIS_ISA_EXT_VAES:
      return __builtin_cpu_supports("avx") != 0 && cpuid_bit(7, kEcx, 9);
    case ZYDIS_ISA_EXT_VPCLMULQDQ:
      return __builtin_cpu_supports("avx") != 0 && cpuid_bit(7, kEcx, 10);
    default:
      return false;
  }
}

bool uses_mmx(const Encoding& e) {
  for (unsigned n = 0; n < e.info.operand_count; ++n) {
    const ZydisDecodedOperand& o = e.operands[n];
    const bool is_register = o.type == ZYDIS_OPERAND_TYPE_REGISTER;
    if (is_register && ZydisRegisterGetClass(o.reg.value) == ZYDIS_REGCLASS_MMX) return true;
  }
  return false;
}

// Operands that processors access piece by piece: how much of one they have loaded or written before a fault, and at
// which piece they find a page missing, is theirs.
bool in_pieces(const Encoding& e) {
  switch (e.info.mnemonic) {
    case ZYDIS_MNEMONIC_FSTP:
      return e.operands[0].size == 80;
    case ZYDIS_MNEMONIC_FBSTP:
    case ZYDIS_MNEMONIC_FLDENV:
    case ZYDIS_MNEMONIC_FNSAVE:
    case ZYDIS_MNEMONIC_FNSTENV:
    case ZYDIS_MNEMONIC_FRSTOR:
    case ZYDIS_MNEMONIC_FXRSTOR:
    case ZYDIS_MNEMONIC_FXRSTOR64:
    case ZYDIS_MNEMONIC_FXSAVE:
    case ZYDIS_MNEMONIC_FXSAVE64:
    case ZYDIS_MNEMONIC_MASKMOVDQU:
    case ZYDIS_MNEMONIC_MASKMOVQ:
    case ZYDIS_MNEMONIC_VMASKMOVDQU:
    case ZYDIS_MNEMONIC_VMASKMOVPD:
    case ZYDIS_MNEMONIC_VMASKMOVPS:
    case ZYDIS_MNEMONIC_VPMASKMOVD:
    case ZYDIS_MNEMONIC_VPMASKMOVQ:
    case ZYDIS_MNEMONIC_XRSTOR:
    case ZYDIS_MNEMONIC_XRSTOR64:
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

constexpr int kPageFault = 14;

// An area of memory that FXSAVE or XSAVE has written; nullptr for other instructions.
std::byte* saved_area(const Encoding& e, const Machine& before, Machine& after) {
  if (!saves_image(e)) return nullptr;
  return after.data.data() + (operand_address(e, e.operands[0], before) - kData);
}

// What is the processor's own in a saved image.
void forgive_image(Mode mode, const Encoding& e, const Machine& before, Machine& native, Machine& engine) {
  std::byte* ours = saved_area(e, before, engine);
  if (ours == nullptr) return;
  std::byte* theirs = saved_area(e, before, native);
  if (e.info.meta.isa_ext == ZYDIS_ISA_EXT_SSE) return;
  // A processor may take a component in its initial state for one that is in use, and then writes it.
  constexpr std::size_t kHeader = 512;
  struct Component {
    std::size_t offset, size;
  };
  const std::size_t vectors = mode == Mode::k64 ? 16 : 8;
  const std::array<Component, 3> components = {{{32, 128}, {160, vectors * 16}, {576, vectors * 16}}};
  const auto extra = load<std::uint64_t>(theirs + kHeader) & ~load<std::uint64_t>(ours + kHeader);
  for (std::size_t n = 0; n < components.size(); ++n) {
    if ((extra >> n & 1) == 0) continue;
    const auto [offset, size] = components[n];
    if (!std::all_of(theirs + offset, theirs + offset + size, [](std::byte b) { return b == std::byte{0}; })) continue;
    std::memcpy(ours + offset, theirs + offset, size);
    store(ours + kHeader, load<std::uint64_t>(ours + kHeader) | std::uint64_t{1} << n);
    if (n == 0) std::memcpy(ours, theirs, 24);
    if (n == 1) std::memcpy(ours + 24, theirs + 24, 8);
  }
}

// AMD's keep x87's pointers over a context switch only with an exception pending (Linux X86_BUG_FXSAVE_LEAK): one
// between the load of the state and an instruction that leaves the data pointer alone makes it 0. Seen once in 60,000
// cases on a loaded machine.
void forgive_lost_pointer(const Encoding& e, const Machine& before, const Machine& native, Machine& engine) {
  constexpr std::size_t kDataPointer = 16;
  const auto pointer = [](const Machine& m) { return load<std::uint64_t>(m.regs.fx.data() + kDataPointer); };
  const bool x87 = e.info.meta.isa_ext == ZYDIS_ISA_EXT_X87 && e.info.mnemonic != ZYDIS_MNEMONIC_FNINIT;
  if (x87 && pointer(native) == 0 && pointer(engine) == pointer(before)) {
    store(engine.regs.fx.data() + kDataPointer, std::uint64_t{0});
  }
}

}  // namespace

bool vector_wanted(const Encoding& e) {
  if (e.info.encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY && e.info.encoding != ZYDIS_INSTRUCTION_ENCODING_VEX)
    return false;
  if (!host_runs(e.info.meta.isa_ext)) return false;
  switch (e.info.meta.category) {
    case ZYDIS_CATEGORY_PREFETCH:
      return false;
    default:
      break;
  }
  switch (e.info.mnemonic) {  // not vector state
    case ZYDIS_MNEMONIC_CRC32:
    case ZYDIS_MNEMONIC_POPCNT:
    case ZYDIS_MNEMONIC_PAUSE:
    case ZYDIS_MNEMONIC_MOVNTI:
    case ZYDIS_MNEMONIC_XGETBV:
    case ZYDIS_MNEMONIC_XSETBV:
    case ZYDIS_MNEMONIC_XSAVES:  // privileged
    case ZYDIS_MNEMONIC_XSAVES64:
    case ZYDIS_MNEMONIC_XRSTORS:
    case ZYDIS_MNEMONIC_XRSTORS64:
      return false;
    default:
      return true;
  }
}

void forgive_vector(Mode mode, const Encoding& e, const Machine& before, Machine& native, Machine& engine) {
  forgive_lost_pointer(e, before, native, engine);
  if (native.exception == kNoException && engine.exception == kNoException)
    forgive_image(mode, e, before, native, engine);
  const bool pieces = in_pieces(e);
  // Whether pages matter of which nothing is read or written: elements not chosen, components in their initial state.
  if (pieces && native.exception != kNoException && engine.exception == kNoException) engine = native;
  // And in which order they are looked at; what has been loaded then.
  if (pieces && native.exception == kPageFault) engine = native;
  if (native.exception == kNoException || engine.exception == kNoException) return;
  if (e.info.mnemonic == ZYDIS_MNEMONIC_XRSTOR || e.info.mnemonic == ZYDIS_MNEMONIC_XRSTOR64) {
    engine.regs.fx = native.regs.fx;
    engine.regs.ymm_high = native.regs.ymm_high;
  }
  // An area for XSAVE that is neither aligned nor canonical: which of the two comes first.
  constexpr int kStackFault = 12;
  constexpr int kGeneralProtection = 13;
  if (pieces && native.exception == kStackFault && engine.exception == kGeneralProtection) {
    engine.exception = kStackFault;
  }
  // The host's kernel is mapped.
  constexpr std::uint32_t kPresent = 1;
  if (native.exception == kPageFault && (native.cr2 >> 63) != 0) engine.error |= native.error & kPresent;
  // Whether the registers have already become MMX's.
  if (uses_mmx(e)) std::copy_n(native.regs.fx.begin(), kFxMxcsr, engine.regs.fx.begin());
  if (uses_mmx(e)) std::copy(native.regs.fx.begin() + 32, native.regs.fx.begin() + kFxXmm, engine.regs.fx.begin() + 32);
}

}  // namespace sevisor::cpu_diff
