// One guest through all modes.
#include <catch2/catch.hpp>

#include "machine.hpp"

using namespace sevisor;
using namespace sevisor::emulator;
using namespace sevisor::emulator::test;

extern "C" const std::uint8_t boot_guest_begin[];
extern "C" const std::uint8_t boot_guest_end[];
extern "C" const std::uint8_t boot_guest_handler[];

TEST_CASE("A guest goes from real mode to long mode, to user code and all the way back") {
  Machine m;
  m.enter(Mode::kReal);
  m.poke(kCode, Bytes(boot_guest_begin, boot_guest_end));
  // #GP's gate, and the stack for it.
  const std::uint64_t handler = kCode + static_cast<std::uint64_t>(boot_guest_handler - boot_guest_begin);
  m.put(kIdt + 13 * 16,
        (handler & 0xffff) | std::uint64_t{0x18} << 16 | std::uint64_t{0x8e} << 40 | (handler & 0xffff0000) << 32);
  m.put(kIdt + 13 * 16 + 8, std::uint64_t{0});
  m.put(kTss + 4, kRing0Stack);

  std::vector<std::uint64_t> reports;
  std::vector<std::uint64_t> traps;
  CpuExit exit;
  for (unsigned i = 0; i < 100; ++i) {
    exit = m.run();
    if (exit.code == ghcb::kExitVmgexit) {
      reports.push_back(m.vmsa.rax & 0xffffffff);
      switch (reports.back()) {
        case 2:
          CHECK((m.vmsa.cr0 & kCr0Pe) != 0);
          break;
        case 3:
          CHECK(((m.vmsa.efer & kEferLma) != 0 && (m.vmsa.cs.attributes & kSegLong) == 0));
          break;
        case 4:
          CHECK((m.vmsa.cs.attributes & kSegLong) != 0);
          break;
        case 5:
          CHECK(m.vmsa.cpl == 3);
          break;
        case 6:
          CHECK(m.vmsa.cpl == 0);
          break;
        case 7:
          CHECK(m.vmsa.cpl == 3);
          break;
        case 8:
          CHECK(m.vmsa.rbx == 0);
          break;
        case 9:
          CHECK((m.vmsa.efer & kEferLma) == 0);
          break;
        case 10:
          CHECK((m.vmsa.cr0 & kCr0Pe) == 0);
          break;
        default:
          break;
      }
    } else if (exit.code >= ghcb::kExitEferWriteTrap && exit.code <= ghcb::kExitCr0WriteTrap + 8) {
      traps.push_back(exit.code);
    } else {
      break;
    }
  }
  CHECK(exit.code == ghcb::kExitHlt);
  CHECK(reports == std::vector<std::uint64_t>{1, 2, 3, 4, 5, 6, 7, 8, 9, 10});
  CHECK(traps == std::vector<std::uint64_t>{0x90, 0x94, 0x8f, 0x90, 0x90, 0x8f, 0x90});
}
