// Linear addresses of 32-bit code: base plus offset is cut to 32 bits, in compatibility mode as in a 32-bit guest (APM
// vol. 2, 4.5.3). i386 C libraries keep their threads' data at negative offsets from GS.
#include <catch2/catch.hpp>

#include "machine.hpp"

using namespace sevisor;
using namespace sevisor::emulator;
using namespace sevisor::emulator::test;

namespace {

constexpr std::uint32_t kBase = kData + 0x1000;
constexpr std::uint32_t kValue = 0x12345678;

struct Below : Machine {
  // GS and ES begin at kBase, with a limit of 4 GiB.
  void enter_at_base(Mode which, unsigned cpl) {
    enter(which, cpl);
    vmsa.gs = vmsa.es = vmsa.ds;
    vmsa.gs.base = vmsa.es.base = kBase;
  }
};

}  // namespace

TEST_CASE_METHOD(Below, "an offset below the segment's base is an address below it", "[compatibility]") {
  const Mode which = GENERATE(Mode::kCompat32, Mode::kProtected32);
  const unsigned cpl = GENERATE(0U, 3U);
  INFO("mode " << static_cast<int>(which) << ", CPL " << cpl);
  enter_at_base(which, cpl);
  put(kBase - 4, kValue);
  put(kBase - 16, ~kValue);
  SECTION("read, twice: the second finds the page at hand") {
    code({0x65, 0xa1, 0xfc, 0xff, 0xff, 0xff,          // mov eax, gs:[-4]
          0x65, 0x8b, 0x1d, 0xf0, 0xff, 0xff, 0xff});  // mov ebx, gs:[-16]
    REQUIRE(run().code == ghcb::kExitVmgexit);
    CHECK(vector() == -1);
    CHECK(vmsa.rax == kValue);
    CHECK(vmsa.rbx == ~kValue);
  }
  SECTION("write, and read and write") {
    code({0x65, 0xc7, 0x05, 0xf8, 0xff, 0xff, 0xff, 0x78, 0x56, 0x34, 0x12,  // mov dword gs:[-8], kValue
          0x65, 0x83, 0x05, 0xf8, 0xff, 0xff, 0xff, 0x01,                    // add dword gs:[-8], 1
          0x65, 0xff, 0x35, 0xf8, 0xff, 0xff, 0xff, 0x58});                  // push dword gs:[-8]; pop eax
    REQUIRE(run().code == ghcb::kExitVmgexit);
    CHECK(get<std::uint32_t>(kBase - 8) == kValue + 1);
    CHECK(vmsa.rax == kValue + 1);
  }
  SECTION("strings") {
    vmsa.rsi = kData;
    vmsa.rdi = 0xfffffff0;
    vmsa.rcx = 4;
    put(kData + 12, kValue + 2);
    code({0xfc, 0xf3, 0xa5});  // cld; rep movsd
    REQUIRE(run().code == ghcb::kExitVmgexit);
    CHECK(get<std::uint32_t>(kBase - 4) == kValue + 2);
    CHECK(vmsa.rdi == 0);
  }
  SECTION("across the segment's begin") {
    put(kBase, std::uint32_t{0x9abcdef0});
    code({0x65, 0xa1, 0xfe, 0xff, 0xff, 0xff});  // mov eax, gs:[-2]
    REQUIRE(run().code == ghcb::kExitVmgexit);
    CHECK(vmsa.rax == 0xdef01234);
  }
  SECTION("a fault's address is the cut one") {
    if (which != Mode::kCompat32) return;        // the other has no paging here
    vmsa.gs.base = 0x7ffff000;                   // nothing is mapped there, nor below
    code({0x65, 0xa1, 0xfc, 0xff, 0xff, 0x7f});  // mov eax, gs:[0x7ffffffc]
    REQUIRE(run().code == ghcb::kExitVmgexit);
    CHECK(vector() == kVectorPf);
    CHECK(vmsa.cr2 == 0xffffeffc);
    enter_at_base(which, cpl);
    vmsa.gs.base = 0xfffff000;
    code({0x65, 0xa1, 0xfc, 0x0f, 0xf0, 0x3f});  // mov eax, gs:[0x3ff00ffc]
    REQUIRE(run().code == ghcb::kExitVmgexit);
    CHECK(vector() == kVectorPf);
    CHECK(vmsa.cr2 == 0x3fefffff - 3);
  }
}

// What the processor reads for itself lies where the kernel has it, above 4 GiB or not: tests of events and segments in
// compatibility mode. And 64-bit code cuts nothing.
TEST_CASE_METHOD(Below, "64-bit code adds its base to 64 bits", "[compatibility]") {
  enter_at_base(Mode::kLong64, 3);
  vmsa.gs.base = 0xfffff000;
  code({0x65, 0x67, 0x8b, 0x04, 0x25, 0xfc, 0x0f, 0x00, 0x40});  // mov eax, gs:[0x40000ffc]
  REQUIRE(run().code == ghcb::kExitVmgexit);
  CHECK(vector() == kVectorPf);
  CHECK(vmsa.cr2 == 0x13ffffffc);
}
