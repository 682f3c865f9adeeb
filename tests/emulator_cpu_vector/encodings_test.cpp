// Random VEX prefixes before random opcodes: what is an instruction and what is #UD must be what the host's processor
// says, but for extensions that one of the two does not have (extensions.hpp).
//
// SEVISOR_DIFF_SEED: another sequence.
#include <algorithm>
#include <catch2/catch.hpp>
#include <cstdlib>
#include <fmt/format.h>
#include <string>

#include "base/bytes.hpp"
#include "tests/cpu_diff/conclude.hpp"
#include "tests/cpu_diff/differences.hpp"
#include "tests/cpu_diff/engine.hpp"
#include "tests/cpu_diff/extensions.hpp"
#include "tests/cpu_diff/integer.hpp"
#include "tests/cpu_diff/native.hpp"
#include "tests/cpu_diff/operands.hpp"
#include "tests/cpu_diff/vector_state.hpp"

namespace sevisor::cpu_diff {

namespace {

constexpr int kInvalidOpcode = 6;

std::string form_of(Mode mode, std::span<const std::uint8_t> code) {
  std::string text = mode == Mode::k64 ? "64-bit" : "32-bit";
  const auto vex = std::find_if(code.begin(), code.end(), [](std::uint8_t b) { return b == 0xc4 || b == 0xc5; });
  const auto opcode = vex + (*vex == 0xc4 ? 3 : 2);
  const int map = *vex == 0xc4 ? vex[1] & 0x1f : 1;
  return fmt::format("{} VEX map {} opcode {:02x}, VEX.pp {}", text, map, *opcode, opcode[-1] & 3);
}

void run(Mode mode) {
  const char* seed = std::getenv("SEVISOR_DIFF_SEED");  // NOLINT(concurrency-mt-unsafe): one thread
  Random random((seed == nullptr ? 35 : 35 + std::strtoull(seed, nullptr, 0)) * 2 + (mode == Mode::k64 ? 1 : 2));
  Native native;
  Engine engine;
  Findings findings;
  int undefined = 0;
  int defined = 0;
  int by_manual = 0;
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
      const std::uint64_t map = random.one_in(16) ? random.below(32) : 1 + random.below(3);
      e.bytes[at] = static_cast<std::uint8_t>((e.bytes[at] & 0xe0) | map);
      if (mode == Mode::k32) e.bytes[at] |= 0xc0;
      ++at;
    }
    if (random.one_in(2)) e.bytes[at] |= 0x78;  // vvvv: none
    const bool known = decode(mode, e);
    // Of an encoding that Zydis does not know the length is not known either. Behind ModRM and SIB a processor that has
    // it finds INT3s, not random instructions.
    constexpr std::uint8_t kInt3 = 0xcc;
    if (!known) std::fill(e.bytes.begin() + static_cast<std::ptrdiff_t>(at) + 4, e.bytes.end(), kInt3);
    if (left_out(host_processor(), e)) continue;
    const Authority who = authority(host_processor(), e.bytes);
    if (who == Authority::kNobody) continue;
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
    if (who == Authority::kHost) native.run(code, mode, expected);
    engine.run(code, mode, actual);
    const bool on_host = expected.exception == kInvalidOpcode;
    const bool in_engine = actual.exception == kInvalidOpcode;
    ++(who == Authority::kManual ? by_manual : on_host ? undefined : defined);
    if (rightly_undefined(who, on_host, in_engine)) continue;
    const std::string ran =
        fmt::format("case {}: {}  native {}, engine {}", n, describe(mode, e, before),
                    who == Authority::kHost ? std::to_string(expected.exception) : "not asked", actual.exception);
    // Here the host has no say.
    const auto add = who == Authority::kManual ? add_failure : add_difference;
    add(findings, form_of(mode, e.bytes), ran, "test_emulator_cpu_vector \"VEX encodings *\"");
  }
  conclude(findings);
  fmt::print("VEX encodings: {} undefined, {} defined, {} not the guest's\n", undefined, defined, by_manual);
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
