// A guest may write ever new code; what the engine keeps of it has a bound, and code goes on to do what it says.
#include <algorithm>
#include <catch2/catch.hpp>

#include "emulator/cpu/code/code_cache.hpp"
#include "emulator/cpu/exec/host_stubs.hpp"
#include "tests/emulator_cpu_system/machine.hpp"

using namespace sevisor;
using namespace sevisor::emulator;
using namespace sevisor::emulator::test;

namespace {

void begin(Machine& m) {
  m.enter(Mode::kLong64);
  m.vmsa.cr4 |= kCr4Osfxsr | kCr4Osxmmexcpt;
  m.vmsa.mxcsr = 0x1f80;
}

}  // namespace

TEST_CASE("ever new vector instructions do not make the engine grow without end") {
  constexpr std::uint64_t kRounds = 150'000;
  Machine m;
  begin(m);
  m.code({
      0x89, 0xc8,                                // loop: mov eax, ecx
      0x0d, 0xc0, 0x00, 0x00, 0x00,              //   or eax, 0xc0: two registers
      0x66, 0x89, 0x05, 0x19, 0x00, 0x00, 0x00,  //   mov [target + 4], ax: ModRM and immediate
      0x89, 0xc8,                                //   mov eax, ecx
      0xc1, 0xe8, 0x0e,                          //   shr eax, 14
      0x83, 0xe0, 0x0f,                          //   and eax, 15
      0x83, 0xc8, 0x40,                          //   or eax, 0x40
      0x88, 0x05, 0x05, 0x00, 0x00, 0x00,        //   mov [target + 1], al: REX
      0x31, 0xc0,                                //   xor eax, eax
      0xeb, 0x00,                                //   jmp target
      0x66, 0x40, 0x0f, 0x70, 0xc0, 0x00,        // target: pshufd xmm, xmm, imm8
      0x41, 0xff, 0xc0,                          //   inc r8d
      0xff, 0xc9,                                //   dec ecx
      0x75, 0xd0,                                //   jnz loop
  });
  m.vmsa.rcx = kRounds;
  m.vmsa.r8 = 0;
  constexpr std::size_t kMostHostCode = 9U << 20;  // all of them would be 25 MiB
  constexpr std::size_t kLeast = 2U << 20;
  std::size_t most = 0;
  REQUIRE(m.cpu.load(m.vmsa));
  m.controls.instruction_limit = 10'000;
  CpuExit exit;
  do {
    exit = m.cpu.run(m.controls);
    most = std::max(most, m.code_cache->stubs().bytes());
  } while (exit.code == ghcb::kExitIntr);
  m.cpu.save(m.vmsa);
  CHECK(exit.code == ghcb::kExitVmgexit);
  CHECK(m.vector() == -1);
  CHECK(m.vmsa.r8 == kRounds);
  CHECK(most > kLeast);
  CHECK(most < kMostHostCode);
}

TEST_CASE("entering code at every byte does not make the engine grow without end") {
  constexpr std::uint64_t kRegion = 0x100000;
  constexpr std::uint64_t kBytes = 0xc000;  // 64 instructions from each: 190 MiB of operations
  Machine m;
  begin(m);
  m.poke(kRegion, Bytes(kBytes + 0x1000, 0x90));
  m.controls.instruction_limit = 1;
  std::size_t most = 0;
  for (std::uint64_t n = 0; n < kBytes; ++n) {
    m.vmsa.rip = kRegion + n;
    REQUIRE(m.cpu.load(m.vmsa));
    REQUIRE(m.cpu.run(m.controls).code == ghcb::kExitIntr);
    most = std::max(most, m.code_cache->bytes());
  }
  CHECK(most > CodeCache::kMaxBytes / 2);
  CHECK(most < CodeCache::kMaxBytes);
}
