// Guests and hypervisors that make no sense: nothing they do may crash, hang or leave the engine's memory.
#include <catch2/catch.hpp>
#include <random>

#include "machine.hpp"

using namespace sevisor;
using namespace sevisor::emulator;
using namespace sevisor::emulator::test;

namespace {

using Random = std::mt19937_64;
// The same sequence every time: a failure names its round.
Random seeded(std::uint64_t seed) { return Random(seed); }

// Opcodes of the system half, so that random bytes meet them more often.
const std::vector<Bytes> kOpcodes = {
    {0x0f, 0x00}, {0x0f, 0x01}, {0x0f, 0x02}, {0x0f, 0x03}, {0x0f, 0x05}, {0x0f, 0x06}, {0x0f, 0x07}, {0x0f, 0x20},
    {0x0f, 0x21}, {0x0f, 0x22}, {0x0f, 0x23}, {0x0f, 0x30}, {0x0f, 0x32}, {0x0f, 0x34}, {0x0f, 0x35}, {0x0f, 0xb2},
    {0x0f, 0xb4}, {0x0f, 0xb5}, {0x0f, 0xae}, {0x8e},       {0x8c},       {0x07},       {0x1f},       {0x17},
    {0x9a},       {0xea},       {0xcb},       {0xca},       {0xcf},       {0x48, 0xcf}, {0xcc},       {0xcd},
    {0xce},       {0xf1},       {0x9c},       {0x9d},       {0xfa},       {0xfb},       {0xff},       {0x48, 0xff},
    {0xc4},       {0xc5},       {0x63},       {0xf3, 0x0f}, {0x66, 0x0f}, {0xec},       {0x6c},       {0xf4}};

Bytes random_code(Random& random) {
  Bytes code;
  while (code.size() < 64) {
    const Bytes& opcode = kOpcodes[random() % kOpcodes.size()];
    code.insert(code.end(), opcode.begin(), opcode.end());
    for (std::uint64_t n = random() % 5; n-- > 0;) code.push_back(static_cast<std::uint8_t>(random()));
  }
  return code;
}

// An address, a selector, a small number or noise.
std::uint64_t random_value(Random& random) {
  const std::uint64_t noise = random();
  switch (random() % 5) {
    case 0:
      return noise % kRamSize;
    case 1:
      return noise % kGdtSize;
    case 2:
      return noise & 0xff;
    case 3:
      return noise << 47;
    default:
      return noise;
  }
}

}  // namespace

TEST_CASE("Random code in random state ends in an exit") {
  const unsigned rounds = 1500;
  Machine m;
  Random random = seeded(1);
  for (unsigned round = 0; round < rounds; ++round) {
    INFO("round " << round);
    constexpr Mode kModes[] = {Mode::kReal, Mode::kProtected16, Mode::kProtected32, Mode::kCompat32, Mode::kLong64};
    const Mode mode = kModes[random() % std::size(kModes)];
    const bool user = mode != Mode::kReal && mode != Mode::kProtected16 && random() % 3 == 0;
    m.enter(mode, user ? 3 : 0);
    m.poke(kCode, random_code(random));
    for (std::uint64_t* r : {&m.vmsa.rax, &m.vmsa.rcx, &m.vmsa.rdx, &m.vmsa.rbx, &m.vmsa.rbp, &m.vmsa.rsi, &m.vmsa.rdi,
                             &m.vmsa.r8, &m.vmsa.star, &m.vmsa.lstar, &m.vmsa.sysenter_cs}) {
      *r = random_value(random);
    }
    if (random() % 4 == 0) m.vmsa.rsp = random_value(random);
    if (random() % 4 == 0) m.vmsa.idtr.limit = static_cast<std::uint32_t>(random() % 0x300);
    for (std::uint64_t n = random() % 4; n-- > 0;) m.put(kGdt + random() % kGdtSize, random());
    for (std::uint64_t n = random() % 4; n-- > 0;) m.put(kIdt + random() % 0x200, random());
    for (std::uint64_t n = random() % 4; n-- > 0;) m.put(kPt + random() % 0x200, random());
    if (random() % 8 == 0) m.put(kPd, random());
    if (random() % 8 == 0) m.put(kPdp, random());
    m.vmsa.rflags |= random() & 0x47dd5;
    m.vmsa.cr4 |= random() & (kCr4Smep | kCr4Smap | kCr4Umip | kCr4Fsgsbase | kCr4De | kCr4Tsd | kCr4Pge);
    m.controls.interrupt_window = random() % 2 == 0;
    if (random() % 4 == 0) m.controls.event_injection = random() | std::uint64_t{1} << 31;
    m.controls.instruction_limit = 500;
    for (unsigned runs = 0; runs < 4; ++runs) {
      // What one run saves, the next must load.
      REQUIRE(m.cpu.load(m.vmsa));
      const CpuExit exit = m.cpu.run(m.controls);
      m.cpu.save(m.vmsa);
      m.controls.event_injection = exit.interrupted_event;
      if (exit.code == ghcb::kExitShutdown || exit.code == ghcb::kExitInvalid || !exit.unimplemented.empty()) break;
    }
  }
}

TEST_CASE("Random VMSAs are refused or run") {
  Machine m;
  Random random = seeded(2);
  unsigned accepted = 0;
  for (unsigned round = 0; round < 1000; ++round) {
    m.enter(round % 2 == 0 ? Mode::kLong64 : Mode::kProtected32);
    m.code({0x90});
    // A few random bytes in the defined part.
    auto* bytes = reinterpret_cast<std::uint8_t*>(&m.vmsa);
    for (std::uint64_t n = 1 + random() % 3; n-- > 0;) bytes[random() % 0x670] = static_cast<std::uint8_t>(random());
    m.controls.instruction_limit = 200;
    if (!m.cpu.load(m.vmsa)) continue;
    ++accepted;
    (void)m.cpu.run(m.controls);
    m.cpu.save(m.vmsa);
    CHECK(m.cpu.load(m.vmsa));
  }
  CHECK(accepted > 250);
}
