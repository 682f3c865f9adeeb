// Whatever the code, the error code and the hypervisor's answer: the handler ends, touches no memory but the operand,
// and changes registers only when it says so.
#include <catch2/catch.hpp>
#include <random>

#include "ghcb/exit_code.hpp"
#include "ghcb/guest/vc_handler.hpp"
#include "tests/ghcb_guest/fake_platform.hpp"

namespace {
using namespace sevisor::ghcb;
using namespace sevisor::ghcb::guest;
using sevisor::test::FakePlatform;

const std::vector<std::vector<std::uint8_t>> kCode = {{0xf3, 0x6c},
                                                      {0x67, 0x6d},
                                                      {0xf3, 0x6e},
                                                      {0x66, 0x6f},
                                                      {0xe4, 0x71},
                                                      {0xed},
                                                      {0xee},
                                                      {0x0f, 0xa2},
                                                      {0x0f, 0x30},
                                                      {0x0f, 0x32},
                                                      {0x0f, 0x31},
                                                      {0x0f, 0x01, 0xf9},
                                                      {0x0f, 0x01, 0xd9},
                                                      {0x0f, 0x09},
                                                      {0x0f, 0x21, 0xf8},
                                                      {0x0f, 0x23, 0xf8},
                                                      {0x88, 0x03},
                                                      {0x48, 0x8b, 0x03},
                                                      {0xf3, 0xab},
                                                      {0xa4},
                                                      {0x0f, 0xbe, 0x03}};
constexpr ExitCode kCodes[] = {kExitReadDr7, kExitWriteDr7, kExitRdtsc, kExitRdpmc,   kExitCpuid,
                               kExitInvd,    kExitIoio,     kExitMsr,   kExitVmmcall, kExitRdtscp,
                               kExitWbinvd,  kExitMonitor,  kExitMwait, kExitNpf,     kExitExceptionDb};

class Hostile {
 public:
  std::uint32_t pick(std::size_t count) { return static_cast<std::uint32_t>(random_() % count); }
  std::uint64_t value() {
    switch (pick(5)) {
      case 0:
        return pick(8);
      case 1:
        return FakePlatform::kMemory + pick(0x10000);
      case 2:
        return FakePlatform::kDevice + pick(0x1000);
      case 3:
        return ~std::uint64_t{0} - pick(16);
      default:
        return std::uint64_t{random_()} << 32 | random_();
    }
  }
  void answer(Page& page) {
    if (pick(8) == 0) return;
    auto* bytes = reinterpret_cast<std::uint8_t*>(&page);
    for (unsigned i = pick(64); i > 0; --i) bytes[pick(sizeof page)] = static_cast<std::uint8_t>(random_());
    page.exit_info_1 = pick(4);
    page.exit_info_2 = pick(2) == 0 ? value() : 0x80000300u | pick(32);
    page.rax = value();
    for (auto& word : page.valid.word) word = pick(2) == 0 ? ~std::uint64_t{0} : value();
  }

 private:
  std::mt19937 random_{29};  // NOLINT(cert-msc32-c,cert-msc51-cpp): the same attacks on every run
};

TEST_CASE("a hostile hypervisor gets nothing but its answers in", "[ghcb_guest][hostile]") {
  Hostile hostile;
  unsigned resumed = 0;
  unsigned stopped = 0;
  for (int i = 0; i < 20000; ++i) {
    FakePlatform platform;
    platform.memory.assign(0x10000, 0xa5);
    platform.code = kCode[hostile.pick(kCode.size())];
    platform.hypervisor = [&](Page& page) { hostile.answer(page); };
    Registers registers;
    for (auto& value : registers.general) value = hostile.value();
    registers.rip = FakePlatform::kCode;
    registers.rflags = hostile.pick(2) * kFlagDirection;
    const Registers before = registers;
    const bool writes_memory =
        platform.code.back() == 0x6c || platform.code.back() == 0x6d || platform.code.back() == 0xa4;

    VcHandler handler(platform, 1);
    const VcResult result = handler.handle(registers, kCodes[hostile.pick(std::size(kCodes))]);
    REQUIRE(platform.exits <= 1);
    if (!writes_memory) REQUIRE(platform.memory == std::vector<std::uint8_t>(0x10000, 0xa5));
    if (result.outcome == VcResult::Outcome::kResume) {
      ++resumed;
      REQUIRE((registers.rip == before.rip || registers.rip == before.rip + platform.code.size()));
      // No answer reaches the stack pointer or a register that no instruction here writes.
      REQUIRE(registers.general[kRsp] == before.general[kRsp]);
      REQUIRE(registers.general[15] == before.general[15]);
    } else {
      ++stopped;
      REQUIRE(registers.rip == before.rip);
      REQUIRE(std::equal(std::begin(before.general), std::end(before.general), std::begin(registers.general)));
    }
    if (result.outcome == VcResult::Outcome::kException) {
      const bool allowed = result.event.vector == 1 || result.event.vector == 6 || result.event.vector == 13;
      REQUIRE(allowed);
    }
  }
  REQUIRE(resumed > 100);
  REQUIRE(stopped > 100);
}
}  // namespace
