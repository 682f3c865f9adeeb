// What VMRUN accepts, and that every register survives a round trip.
#include <catch2/catch.hpp>
#include <cstring>

#include "machine.hpp"

using namespace sevisor;
using namespace sevisor::emulator;
using namespace sevisor::emulator::test;

TEST_CASE("Loading and saving gives the same VMSA") {
  Machine m;
  m.enter(Mode::kLong64);
  Vmsa& v = m.vmsa;
  std::uint64_t n = 0x0101010101010101;
  for (std::uint64_t* r :
       {&v.rax,         &v.rcx,          &v.rdx,          &v.rbx,    &v.rsp,     &v.rbp,       &v.rsi,
        &v.rdi,         &v.r8,           &v.r9,           &v.r10,    &v.r11,     &v.r12,       &v.r13,
        &v.r14,         &v.r15,          &v.star,         &v.lstar,  &v.cstar,   &v.sfmask,    &v.kernel_gs_base,
        &v.sysenter_cs, &v.sysenter_esp, &v.sysenter_eip, &v.cr2,    &v.dr[0],   &v.dr[1],     &v.dr[2],
        &v.dr[3],       &v.dr_mask[0],   &v.dr_mask[3],   &v.x87_dp, &v.x87_rip, &v.tsc_scale, &v.s_cet}) {
    *r = n;
    n += 0x0101010101010101;
  }
  v.rflags = 0x200ed7;
  v.tsc_aux = 7;
  v.x87_fsw = 0x3800 | 0x41;  // TOP 7
  v.mxcsr = 0x1fa0;
  v.xcr0 = 7;
  for (unsigned i = 0; i < 80; ++i) v.x87_registers[i] = 0;
  for (unsigned i = 0; i < 16; ++i) {
    std::memset(v.xmm[i], 0x40 + static_cast<int>(i), 16);
    std::memset(v.ymm_high[i], 0x80 + static_cast<int>(i), 16);
  }
  // Physical register 7 is ST(0): 1.0. 6 is ST(7): zero. 5 is ST(6): infinity. 4 and below are empty.
  v.x87_ftw = 0xe0;
  store(v.x87_registers + 0, std::uint64_t{1} << 63);
  store(v.x87_registers + 64, std::uint16_t{0x3fff});
  store(v.x87_registers + 8 * 6, std::uint64_t{1} << 63);
  store(v.x87_registers + 64 + 2 * 6, std::uint16_t{0x7fff});
  const Vmsa before = v;
  REQUIRE(m.cpu.load(v));
  m.cpu.save(v);
  CHECK(std::memcmp(&before, &v, sizeof v) == 0);
}

TEST_CASE("VMRUN refuses inconsistent state") {
  Machine m;
  m.enter(Mode::kLong64);
  const Vmsa good = m.vmsa;
  REQUIRE(m.cpu.load(good));
  const auto refused = [&](auto change) {
    Vmsa v = good;
    change(v);
    return !m.cpu.load(v);
  };
  CHECK(refused([](Vmsa& v) { v.reserved_0d8[3] = 1; }));
  CHECK(refused([](Vmsa& v) { v.reserved_670[100] = 1; }));
  CHECK(refused([](Vmsa& v) { v.reserved_320 = 1; }));
  CHECK(refused([](Vmsa& v) { v.cr0 |= std::uint64_t{1} << 32; }));
  CHECK(refused([](Vmsa& v) { v.cr0 |= kCr0Nw; }));
  CHECK(refused([](Vmsa& v) { v.cr4 |= 1 << 15; }));
  CHECK(refused([](Vmsa& v) { v.cr4 &= ~kCr4Pae; }));
  CHECK(refused([](Vmsa& v) { v.cr0 &= ~kCr0Pe; }));
  CHECK(refused([](Vmsa& v) { v.cr3 |= std::uint64_t{1} << 50; }));
  CHECK(refused([](Vmsa& v) { v.cs.attributes |= kSegDefault; }));
  CHECK(refused([](Vmsa& v) { v.efer |= 2; }));
  CHECK(refused([](Vmsa& v) { v.dr7 |= std::uint64_t{1} << 32; }));
  CHECK(refused([](Vmsa& v) { v.xcr0 = 0; }));
  CHECK(refused([](Vmsa& v) { v.cpl = 4; }));
  CHECK_FALSE(refused([](Vmsa& v) { v.efer &= ~kEferSvme; }));
  CHECK_FALSE(refused([](Vmsa& v) { v.cr3 |= kCBit; }));
}
