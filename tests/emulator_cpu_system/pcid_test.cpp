// PCIDs and INVPCID (APM vol. 2, 5.5.1; APM vol. 3, INVPCID), and the registers that control speculation (vol.
// 2, 3.2.9).
#include <catch2/catch.hpp>

#include "machine.hpp"

using namespace sevisor;
using namespace sevisor::emulator;
using namespace sevisor::emulator::test;

namespace {

constexpr std::uint64_t kOperand = kData + 0x800;
const Bytes kMovCr3Rax = {0x0f, 0x22, 0xd8};
const Bytes kMovCr4Rax = {0x0f, 0x22, 0xe0};

// Reads [rbx], changes the page's entry to the next page, executes INVPCID rax, [rsi], reads again.
// Returns whether the second read saw the new page. `global`: the page's entry is.
bool dropped(Machine& m, std::uint64_t type, std::uint64_t pcid, std::uint64_t address, bool global = false,
             std::uint64_t present_pcid = 0) {
  m.enter(Mode::kLong64);
  m.vmsa.cr4 |= kCr4Pge | kCr4Pcide;
  m.vmsa.cr3 |= present_pcid;
  const std::uint64_t flags = 0x7 | (global ? 0x100 : 0) | kCBit;
  constexpr std::uint64_t kPage = kData + 0x4000;
  m.put(kPt + (kPage >> 12) * 8, kPage | flags);
  m.put(kPage, std::uint64_t{1});
  m.put(kPage + 0x1000, std::uint64_t{2});
  m.put(kOperand, pcid);
  m.put(kOperand + 8, address);
  m.vmsa.rax = type;
  m.vmsa.rbx = kPage;
  m.vmsa.rsi = kOperand;
  m.vmsa.rdi = kPt + (kPage >> 12) * 8;
  m.vmsa.r8 = (kPage + 0x1000) | flags;
  m.code({0x48, 0x8b, 0x0b,              // mov rcx, [rbx]
          0x4c, 0x89, 0x07,              // mov [rdi], r8
          0x66, 0x0f, 0x38, 0x82, 0x06,  // invpcid rax, [rsi]
          0x48, 0x8b, 0x13});            // mov rdx, [rbx]
  REQUIRE(m.run().code == ghcb::kExitVmgexit);
  REQUIRE(m.vector() == -1);
  REQUIRE(m.vmsa.rcx == 1);
  return m.vmsa.rdx == 2;
}

}  // namespace

TEST_CASE("INVPCID drops the translations that it names") {
  Machine m;
  constexpr std::uint64_t kPage = kData + 0x4000;
  CHECK(dropped(m, 0, 0, kPage));
  CHECK(dropped(m, 0, 5, kPage, false, 5));
  CHECK_FALSE(dropped(m, 0, 0, kPage + 0x2000));
  CHECK(dropped(m, 1, 0, 0));
  CHECK_FALSE(dropped(m, 1, 0, 0, true));  // global ones stay
  CHECK_FALSE(dropped(m, 1, 7, 0));        // of another PCID
  CHECK(dropped(m, 2, 0, 0, true));
  CHECK(dropped(m, 3, 0, 0));
  CHECK_FALSE(dropped(m, 3, 0, 0, true));
}

TEST_CASE("INVPCID checks type, PCID, address and privilege") {
  Machine m;
  struct Case {
    const char* what;
    std::uint64_t type, pcid, address;
    bool pcids;
    unsigned cpl;
  };
  for (const Case& c : {Case{"type", 4, 0, 0, true, 0}, Case{"PCID of 13 bits", 1, 0x1000, 0, true, 0},
                        Case{"a PCID without CR4.PCIDE", 1, 1, 0, false, 0},
                        Case{"address", 0, 0, 0x0000'8000'0000'0000, true, 0}, Case{"user code", 3, 0, 0, true, 3}}) {
    INFO(c.what);
    m.enter(Mode::kLong64, c.cpl);
    if (c.pcids) m.vmsa.cr4 |= kCr4Pcide;
    m.put(kOperand, c.pcid);
    m.put(kOperand + 8, c.address);
    m.vmsa.rax = c.type;
    m.vmsa.rsi = kOperand;
    m.code({0x66, 0x0f, 0x38, 0x82, 0x06});
    REQUIRE(m.run().code == ghcb::kExitVmgexit);
    CHECK(m.vector() == kVectorGp);
    CHECK(m.stacked(0) == 0);
  }
}

TEST_CASE("CR4.PCIDE wants long mode and PCID 0; with it CR3 takes the bit that asks for no flush") {
  Machine m;
  m.enter(Mode::kLong64);
  m.vmsa.rax = m.vmsa.cr4 | kCr4Pcide;
  m.code(kMovCr4Rax);
  CHECK(m.run_through_traps().code == ghcb::kExitVmgexit);
  CHECK((m.vmsa.cr4 & kCr4Pcide) != 0);
  CHECK(m.vector() == -1);

  m.enter(Mode::kLong64);
  m.vmsa.cr3 |= 0x18;
  m.vmsa.rax = m.vmsa.cr4 | kCr4Pcide;
  m.code(kMovCr4Rax);
  REQUIRE(m.run().code == ghcb::kExitVmgexit);
  CHECK(m.vector() == kVectorGp);

  m.enter(Mode::kProtected32);
  m.vmsa.rax = m.vmsa.cr4 | kCr4Pcide;
  m.code(kMovCr4Rax);
  REQUIRE(m.run().code == ghcb::kExitVmgexit);
  CHECK(m.vector() == kVectorGp);

  for (const bool pcids : {false, true}) {
    m.enter(Mode::kLong64);
    if (pcids) m.vmsa.cr4 |= kCr4Pcide;
    m.vmsa.rax = std::uint64_t{1} << 63 | kPml4 | 3;
    m.code(kMovCr3Rax);
    REQUIRE(m.run().code == ghcb::kExitVmgexit);
    CHECK(m.vector() == (pcids ? -1 : kVectorGp));
    if (pcids) CHECK(m.vmsa.cr3 == (kPml4 | 3));
  }
}

TEST_CASE("SPEC_CTRL keeps its bits, PRED_CMD can only be written") {
  Machine m;
  m.enter(Mode::kLong64);
  m.vmsa.rcx = 0x48;
  m.vmsa.rax = 0x87;
  m.code({0x0f, 0x30, 0x31, 0xc0, 0x0f, 0x32});  // wrmsr; xor eax, eax; rdmsr
  REQUIRE(m.run().code == ghcb::kExitVmgexit);
  CHECK(m.vmsa.rax == 0x87);
  CHECK(m.vmsa.spec_ctrl == 0x87);
  struct Case {
    std::uint32_t msr;
    std::uint64_t value;
    Bytes code;
    int vector;
  };
  for (const Case& c : {Case{0x48, 0x8, {0x0f, 0x30}, kVectorGp}, Case{0x49, 1, {0x0f, 0x30}, -1},
                        Case{0x49, 2, {0x0f, 0x30}, kVectorGp}, Case{0x49, 0, {0x0f, 0x32}, kVectorGp}}) {
    m.enter(Mode::kLong64);
    m.vmsa.rcx = c.msr;
    m.vmsa.rax = c.value;
    m.code(c.code);
    REQUIRE(m.run().code == ghcb::kExitVmgexit);
    CHECK(m.vector() == c.vector);
  }
}
