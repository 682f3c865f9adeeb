// Random VEX prefixes before random opcodes: what is an instruction and what is #UD must be what the host's processor
// says, but for what it has and an EPYC has not.
#include <catch2/catch.hpp>
#include <set>

#include "base/bytes.hpp"
#include "tests/cpu_diff/differences.hpp"
#include "tests/cpu_diff/engine.hpp"
#include "tests/cpu_diff/integer.hpp"
#include "tests/cpu_diff/native.hpp"
#include "tests/cpu_diff/operands.hpp"
#include "tests/cpu_diff/vector_state.hpp"

namespace sevisor::cpu_diff {

namespace {

constexpr int kInvalidOpcode = 6;

// The engine says #UD to all of these, whatever the host is.
bool not_offered(const Encoding& e) {
  switch (e.info.meta.isa_ext) {
    case ZYDIS_ISA_EXT_AVX512VEX:
    case ZYDIS_ISA_EXT_AVX_VNNI:
    case ZYDIS_ISA_EXT_AMX_BF16:
    case ZYDIS_ISA_EXT_AMX_INT8:
    case ZYDIS_ISA_EXT_AMX_TILE:
    case ZYDIS_ISA_EXT_GFNI:
      return true;
    default:
      return false;
  }
}

void run(Mode mode) {
  Random random(mode == Mode::k64 ? 71 : 72);
  Native native;
  Engine engine;
  int undefined = 0;
  int defined = 0;
  for (int n = 0; n < 60000; ++n) {
    Encoding e;
    for (std::uint8_t& b : e.bytes) b = random.byte();
    std::size_t at = 0;
    if (random.one_in(16)) e.bytes[at++] = std::array<std::uint8_t, 4>{0x66, 0xf2, 0xf3, 0xf0}[random.below(4)];
    if (random.one_in(2)) {
      e.bytes[at++] = 0xc5;
      if (mode == Mode::k32) e.bytes[at] |= 0xc0;  // else LDS
    } else {
      e.bytes[at++] = 0xc4;
      e.bytes[at] = static_cast<std::uint8_t>((e.bytes[at] & 0xe0) | (1 + random.below(3)));
      if (mode == Mode::k32) e.bytes[at] |= 0xc0;
      ++at;
    }
    if (random.one_in(2)) e.bytes[at] |= 0x78;  // vvvv: none
    const bool known = decode(mode, e);
    if (known && not_offered(e)) continue;
    if (left_out(host_processor(), e)) continue;
    // Memory at registers that point into the data pages; no branches and nothing privileged is in VEX's maps.
    Machine before = random_machine(random);
    for (std::uint64_t& r : before.regs.gpr) r = kData + 4096 + 64 * random.below(16);
    randomize_vector(random, before);
    constexpr std::uint32_t kAllMasked = 0x1f80;
    store(before.regs.fx.data() + kFxMxcsr, kAllMasked);
    narrow(mode, before);
    Machine expected = before;
    Machine actual = before;
    const std::span<const std::uint8_t> code(e.bytes.data(), known ? e.info.length : e.bytes.size());
    native.run(code, mode, expected);
    engine.run(code, mode, actual);
    INFO(describe(mode, e, before) << "native " << expected.exception << ", engine " << actual.exception);
    CHECK((expected.exception == kInvalidOpcode) == (actual.exception == kInvalidOpcode));
    ++(expected.exception == kInvalidOpcode ? undefined : defined);
  }
  CHECK(undefined > 1000);
  CHECK(defined > 1000);
}

}  // namespace

TEST_CASE("VEX encodings are undefined where the host's processor says so") {
  if (!host_has_ymm() || __builtin_cpu_supports("avx2") == 0 || __builtin_cpu_supports("fma") == 0) {
    WARN("skipped: the host has no AVX2 and FMA");
    return;
  }
  SECTION("64-bit") { run(Mode::k64); }
  SECTION("32-bit") { run(Mode::k32); }
}

}  // namespace sevisor::cpu_diff
