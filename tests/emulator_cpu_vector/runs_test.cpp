// Runs of x87, MMX and SSE instructions, in one block, on the host's processor and in the engine: what one of them
// leaves in the host's unit for the next (emulator/cpu/state/host_unit.hpp) must not show. Single instructions are
// compared elsewhere.
#include <algorithm>
#include <catch2/catch.hpp>
#include <cstring>
#include <fmt/format.h>

#include "base/bytes.hpp"
#include "tests/cpu_diff/conclude.hpp"
#include "tests/cpu_diff/engine.hpp"
#include "tests/cpu_diff/form_table.hpp"
#include "tests/cpu_diff/native.hpp"
#include "tests/cpu_diff/operands.hpp"
#include "tests/cpu_diff/vector.hpp"
#include "tests/cpu_diff/vector_state.hpp"

namespace sevisor::cpu_diff {

namespace {

constexpr std::size_t kRbx = 3;

// Operands of the table below, from RBX.
constexpr std::uint8_t kSingle = 0x00, kDouble = 0x08, kExtended = 0x10, kInteger = 0x20, kControl = 0x28;
constexpr std::uint8_t kAnyControl = 0x2a, kMxcsr = 0x2c, kOut = 0x30;
constexpr std::size_t kImage = 0x80;  // FXSAVE

// What reads or writes memory, or the state of its unit.
const std::vector<std::vector<std::uint8_t>> kFixed = {
    {0xd9, 0x43, kSingle},                                 // fld m32
    {0xdd, 0x43, kDouble},                                 // fld m64
    {0xdb, 0x6b, kExtended},                               // fld m80
    {0xdf, 0x6b, kInteger},                                // fild m64
    {0xdc, 0x43, kDouble},                                 // fadd m64
    {0xde, 0x4b, kInteger},                                // fimul m16
    {0xd9, 0x5b, kOut},                                    // fstp m32
    {0xdd, 0x53, kOut},                                    // fst m64
    {0xdb, 0x7b, kOut},                                    // fstp m80
    {0xdf, 0x7b, kOut},                                    // fistp m64
    {0xdd, 0x4b, kOut},                                    // fisttp m64
    {0xd9, 0x6b, kControl},                                // fldcw: all masked
    {0xd9, 0x6b, kAnyControl},                             // fldcw: any masks
    {0xd9, 0x7b, kOut},                                    // fnstcw m16
    {0xdd, 0x7b, kOut},                                    // fnstsw m16
    {0xdf, 0xe0},                                          // fnstsw ax
    {0xdb, 0xe2},                                          // fnclex
    {0xdb, 0xe3},                                          // fninit
    {0x9b},                                                // fwait
    {0x0f, 0x77},                                          // emms
    {0x0f, 0x6f, 0x43, kInteger},                          // movq mm0, m64
    {0x0f, 0x7f, 0x4b, kOut},                              // movq m64, mm1
    {0x0f, 0xae, 0x53, kMxcsr},                            // ldmxcsr
    {0x0f, 0xae, 0x5b, kOut},                              // stmxcsr
    {0x48, 0x0f, 0xae, 0x83, kImage, 0, 0, 0},             // fxsave64
    {0x48, 0x0f, 0xae, 0x83, kImage, 0, 0, 0, 0x48, 0x0f,  // fxsave64, fxrstor64
     0xae, 0x8b, kImage, 0, 0, 0},
    {0xf2, 0x0f, 0x58, 0xc1},  // addsd xmm0, xmm1
    {0xf3, 0x0f, 0x59, 0xd3},  // mulss xmm2, xmm3
};

bool names_register(const Encoding& e, ZydisRegisterClass first, ZydisRegisterClass last) {
  return std::any_of(e.operands.begin(), e.operands.begin() + e.info.operand_count, [=](const ZydisDecodedOperand& o) {
    if (o.type != ZYDIS_OPERAND_TYPE_REGISTER) return false;
    const auto c = ZydisRegisterGetClass(o.reg.value);
    return c >= first && c <= last;
  });
}
bool names_memory(const Encoding& e) {
  return std::any_of(e.operands.begin(), e.operands.begin() + e.info.operand_count,
                     [](const ZydisDecodedOperand& o) { return o.type == ZYDIS_OPERAND_TYPE_MEMORY; });
}

// Of the two units, without operands in memory or general registers.
bool wanted(const Encoding& e) {
  const bool unit = e.info.meta.isa_ext == ZYDIS_ISA_EXT_X87 || e.info.meta.isa_ext == ZYDIS_ISA_EXT_MMX ||
                    names_register(e, ZYDIS_REGCLASS_MMX, ZYDIS_REGCLASS_MMX);
  return unit && vector_wanted(e) && !names_memory(e) && !names_register(e, ZYDIS_REGCLASS_GPR8, ZYDIS_REGCLASS_GPR64);
}

std::vector<FormEntry> register_forms() {
  std::vector<FormEntry> forms = list_forms(Mode::k64);
  for (FormEntry& form : forms) {
    std::erase_if(form.samples, [](const Encoding& e) { return !wanted(e); });
  }
  std::erase_if(forms, [](const FormEntry& form) { return form.samples.empty(); });
  return forms;
}

// Does the instruction at `code` use MMX registers?
bool uses_mmx(std::span<const std::uint8_t> code) {
  Encoding e;
  std::copy_n(code.begin(), std::min(code.size(), e.bytes.size()), e.bytes.begin());
  return decode(Mode::k64, e) && names_register(e, ZYDIS_REGCLASS_MMX, ZYDIS_REGCLASS_MMX);
}

// In FXSAVE's image: MXCSR_MASK, and FOP and FDP, which Intel's processors note at unmasked exceptions only.
void drop_own(Machine& m) {
  std::byte* image = m.data.data() + kImage;
  std::fill_n(image + 6, 2, std::byte{});
  std::fill_n(image + 16, 8, std::byte{});
  std::fill_n(image + 28, 4, std::byte{});
}

}  // namespace

TEST_CASE("runs of x87, MMX and SSE instructions do what they do on the host's processor") {
  constexpr int kCases = 20'000;
  constexpr std::size_t kMost = 0x50;  // bytes, before kTaken
  Native native;
  Engine engine;
  const std::vector<FormEntry> forms = register_forms();
  REQUIRE(forms.size() > 50);
  Random random(4);
  int completed = 0;
  Findings findings;
  for (int n = 0; n < kCases; ++n) {
    Machine before = random_machine(random);
    randomize_vector(random, before);
    before.regs.gpr[kRbx] = kData;
    store<std::uint16_t>(before.data.data() + kControl, static_cast<std::uint16_t>(0x37f | random.below(4) << 10));
    store<std::uint16_t>(before.data.data() + kAnyControl, static_cast<std::uint16_t>(0x340 | random.below(64)));
    store<std::uint32_t>(before.data.data() + kMxcsr, static_cast<std::uint32_t>(0x1f80 | random.below(4) << 13));
    std::vector<std::uint8_t> code;
    std::vector<std::size_t> starts;
    const std::uint64_t count = 2 + random.below(7);
    for (std::uint64_t i = 0; i < count; ++i) {
      std::vector<std::uint8_t> one = kFixed[random.below(kFixed.size())];
      if (random.one_in(2)) {
        Encoding e;
        REQUIRE(vary(random, Mode::k64, forms[random.below(forms.size())], e));
        one.assign(e.code().begin(), e.code().end());
      }
      if (code.size() + one.size() > kMost) break;
      starts.push_back(code.size());
      code.insert(code.end(), one.begin(), one.end());
    }
    Machine expected = before;
    Machine actual = before;
    native.run(code, Mode::k64, expected);
    engine.run(code, Mode::k64, actual);
    drop_own(expected);
    drop_own(actual);
    if (expected.exception == kNoException) ++completed;
    // Whether a faulting MMX instruction has already made the registers its own is the processor's affair.
    if (expected.exception != kNoException && uses_mmx(std::span(code).subspan(expected.rip - kCode))) continue;
    const std::string text = difference(expected, actual, 0) + vector_difference(Mode::k64, expected, actual);
    if (text.empty()) continue;
    std::string bytes;
    for (std::size_t i = 0; i < code.size(); ++i) {
      if (std::find(starts.begin(), starts.end(), i) != starts.end()) bytes += "|";
      bytes += fmt::format(" {:02x}", code[i]);
    }
    add_difference(findings, "runs of instructions",
                   fmt::format("case {}:{}\n{}{}", n, bytes, describe_vector(before), text),
                   "test_emulator_cpu_vector \"runs of *\"");
  }
  conclude(findings);
  CHECK(completed > kCases / 2);
}

}  // namespace sevisor::cpu_diff
