#include "tests/cpu_diff/vendor.hpp"

#include <algorithm>
#include <cpuid.h>
#include <cstring>
#include <fmt/format.h>

#include "base/bytes.hpp"
#include "tests/cpu_diff/vector_state.hpp"

namespace sevisor::cpu_diff {

namespace {

constexpr int kBoundRange = 5;
constexpr int kInvalidOpcode = 6;
constexpr int kGeneralProtection = 13;
constexpr int kPageFault = 14;
constexpr int kFloatingPoint = 19;
constexpr unsigned kRepne = 0xf2;
constexpr unsigned kRep = 0xf3;
constexpr std::size_t kRcx = 1;
constexpr std::size_t kRsi = 6;
constexpr std::size_t kRdi = 7;

bool is_one_of(const Encoding& e, std::initializer_list<ZydisMnemonic> list) {
  return std::find(list.begin(), list.end(), e.info.mnemonic) != list.end();
}

// The memory operand that the encoding names, or nullptr.
const ZydisDecodedOperand* memory_operand(const Encoding& e) {
  const auto* end = e.operands.data() + e.info.operand_count_visible;
  const auto* found = std::find_if(e.operands.data(), end,
                                   [](const ZydisDecodedOperand& o) { return o.type == ZYDIS_OPERAND_TYPE_MEMORY; });
  return found == end ? nullptr : found;
}

// An x87 exception waits for the next instruction that looks.
bool pending(const Registers& r) {
  constexpr std::size_t kFsw = 2;
  constexpr unsigned kSummary = 0x80;
  return (load<std::uint16_t>(r.fx.data() + kFsw) & kSummary) != 0;
}

// --- integer instructions

void prefetch_of_register(const Ran& ran, const Machine& native, Machine& engine) {
  constexpr unsigned kOpcode = 0x0d;
  constexpr unsigned kRegister = 3;
  const auto& info = ran.e.info;
  const bool form = info.opcode_map == ZYDIS_OPCODE_MAP_0F && info.opcode == kOpcode && info.raw.modrm.mod == kRegister;
  if (form && engine.exception == kInvalidOpcode && native.exception == kNoException) engine = native;
}

void repeated_loop(const Ran& ran, const Machine& native, Machine& engine) {
  if (!is_one_of(ran.e, {ZYDIS_MNEMONIC_LOOPE, ZYDIS_MNEMONIC_LOOPNE})) return;
  const auto* prefixes = ran.e.info.raw.prefixes;
  const bool repeats = std::any_of(prefixes, prefixes + ran.e.info.raw.prefix_count,
                                   [](const auto& p) { return p.value == kRepne || p.value == kRep; });
  if (repeats) engine.rip = native.rip;
}

void call_to_nowhere(const Ran& ran, const Machine& native, Machine& engine) {
  if (ran.e.info.mnemonic != ZYDIS_MNEMONIC_CALL) return;
  if (engine.exception == kGeneralProtection && native.exception == kGeneralProtection) engine.data = native.data;
}

void bound_order(const Ran& ran, const Machine& native, Machine& engine) {
  if (ran.e.info.mnemonic != ZYDIS_MNEMONIC_BOUND) return;
  if (native.exception == kBoundRange && engine.exception == kPageFault) engine = native;
}

void short_movsxd(const Ran& ran, const Machine& native, Machine& engine) {
  if (ran.e.info.mnemonic != ZYDIS_MNEMONIC_MOVSXD || ran.e.operands[0].size != 16) return;
  if (native.exception == kNoException && engine.exception == kPageFault) engine = native;
}

void short_strings(const Ran& ran, const Machine& native, Machine& engine) {
  if (ran.mode != Mode::k64 || ran.e.info.meta.category != ZYDIS_CATEGORY_STRINGOP) return;
  if (ran.e.info.address_width != 32) return;
  constexpr std::uint64_t kLow = 0xffffffff;
  const bool none = (ran.before.regs.gpr[kRcx] & kLow) == 0;
  if (!none && native.exception == kNoException) return;
  for (const std::size_t r : {kRcx, kRsi, kRdi}) {
    if (((native.regs.gpr[r] ^ engine.regs.gpr[r]) & kLow) == 0) engine.regs.gpr[r] = native.regs.gpr[r];
  }
}

// --- vector instructions

void x87_store(const Ran& ran, const Machine& native, Machine& engine) {
  const bool stores = is_one_of(ran.e, {ZYDIS_MNEMONIC_FST, ZYDIS_MNEMONIC_FSTP, ZYDIS_MNEMONIC_FIST,
                                        ZYDIS_MNEMONIC_FISTP, ZYDIS_MNEMONIC_FISTTP, ZYDIS_MNEMONIC_FBSTP});
  if (!stores || memory_operand(ran.e) == nullptr) return;
  if (native.exception == kNoException && engine.exception != kNoException && pending(native.regs)) engine = native;
}

void misaligned_sha(const Ran& ran, const Machine& native, Machine& engine) {
  constexpr std::uint64_t kAlignment = 16;
  const ZydisDecodedOperand* memory = memory_operand(ran.e);
  if (ran.e.info.meta.isa_ext != ZYDIS_ISA_EXT_SHA || memory == nullptr) return;
  if (operand_address(ran.e, *memory, ran.before) % kAlignment == 0) return;
  if (native.exception == kGeneralProtection) engine = native;
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

// --- state

struct Field {
  std::size_t at, size;
};
constexpr Field kFop{6, 2};
constexpr Field kFip{8, 8};
constexpr Field kFdp{16, 8};

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

void stored_x87_pointers(const Ran& ran, const Machine& native, Machine& engine) {
  const Field field = stored_pointers(ran.e);
  if (field.size != 0 && native.exception == kNoException) take_stored(ran, field, native, engine);
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

constexpr std::array kDetails = std::to_array<VendorDetail>({
    {"whether 0F 0D with a register is undefined", "PREFETCHW of a register is #UD on AMD's and nothing on Intel's",
     prefetch_of_register},
    {"where LOOPE and LOOPNE behind F2 or F3 go", "the prefix is the condition on AMD's and ignored on Intel's",
     repeated_loop},
    {"what CALL to an address that is not canonical has pushed",
     "AMD's check the target before they push, Intel's behind it", call_to_nowhere},
    {"BOUND below the lower bound whose upper one cannot be read",
     "AMD's read both before they compare, Intel's compare first", bound_order},
    {"whether MOVSXD to 16 bits reads more than two bytes", "AMD's read four, Intel's two", short_movsxd},
    {"upper halves of RCX, RSI and RDI behind strings with 32-bit addresses that repeat not once",
     "AMD's leave them, Intel's clear them", short_strings},
    {"SHA instructions with a misaligned operand", "not checked on AMD's, #GP on Intel's", misaligned_sha},
    {"VPEXTRD and VPINSRD with VEX.W in 32-bit code", "#UD on AMD's, W ignored on Intel's", wide_element_in_32_bits},
    {"VCVTPS2PH whose page cannot be written: #PF or #XF, and MXCSR",
     "AMD's look at the page first, Intel's at the numbers", half_precision_store},
    {"an x87 store that raises an unmasked exception and whose page cannot be written",
     "AMD's look at the page first, Intel's at the number", x87_store},
    {"what a fault leaves in a gather's mask but for signs, and beyond the vectors' length",
     "AMD's change only elements that were loaded, Intel's make the mask all ones or zero", broken_gather},
    {"x87's FOP and data pointer, and without a pending exception its instruction pointer",
     "AMD's show them only with an exception pending, Intel's always or deprecate them", x87_pointers},
    {"the same in what FNSTENV, FNSAVE, FXSAVE and XSAVE store", "as above", stored_x87_pointers},
    {"bit 17 of MXCSR_MASK", "only AMD's have misaligned SSE (MXCSR.MM)", mxcsr_mask},
});

std::string read_vendor_name() {
  std::array<unsigned, 4> r{};  // EAX, EBX, ECX, EDX
  __get_cpuid(0, r.data(), &r[1], &r[2], &r[3]);
  std::string name(12, '\0');
  std::memcpy(name.data(), &r[1], 4);
  std::memcpy(name.data() + 4, &r[3], 4);
  std::memcpy(name.data() + 8, &r[2], 4);
  return name;
}

}  // namespace

Vendor vendor_of(std::string_view name) {
  if (name == "AuthenticAMD") return Vendor::kAmd;
  return name == "GenuineIntel" ? Vendor::kIntel : Vendor::kOther;
}

const std::string& host_vendor_name() {
  static const std::string name = read_vendor_name();
  return name;
}

Vendor host_vendor() {
  static const Vendor vendor = vendor_of(host_vendor_name());
  return vendor;
}

std::span<const VendorDetail> vendor_details() { return kDetails; }

void forgive_vendor(Vendor vendor, const Ran& ran, const Machine& native, Machine& engine) {
  if (vendor == Vendor::kAmd) return;
  for (const VendorDetail& detail : kDetails) detail.forgive(ran, native, engine);
}

std::string describe_vendor(Vendor vendor, std::string_view name) {
  if (vendor == Vendor::kAmd) return fmt::format("host: {}, as the emulated processor\n", name);
  std::string text =
      fmt::format("host: {}; where AMD's processors differ from it the following is not compared:\n", name);
  for (const VendorDetail& detail : kDetails) text += fmt::format("  {}: {}\n", detail.what, detail.why);
  return text;
}

}  // namespace sevisor::cpu_diff
