// What AMD's processors do and others do not, in the engine alone, so that hosts of other makers hold it too (on AMD's
// the differential tests do). Expected values: APM, and an EPYC of family 25 model 1 for what it leaves open.
#include <algorithm>
#include <catch2/catch.hpp>
#include <cstring>
#include <vector>

#include "base/bytes.hpp"
#include "emulator/cpu/state/features.hpp"
#include "tests/cpu_diff/engine.hpp"

namespace sevisor::cpu_diff {

namespace {

constexpr int kUd = 6;
constexpr int kGp = 13;
constexpr int kPf = 14;
constexpr std::uint64_t kEnd = kData + kDataSize;
constexpr std::uint64_t kNowhere = 0x8000000000001234;  // not canonical
constexpr std::uint64_t kZf = 0x40;
enum Gpr : std::uint8_t { kRax, kRcx, kRdx, kRbx, kRsp };

struct Amd {
  Engine engine;
  Machine m;

  Amd() {
    m.regs = initial_registers();
    m.regs.gpr[kRbx] = kData;
    m.regs.gpr[kRsp] = kData + 0x1000;
  }
  // Runs the instruction, and returns the exception.
  int run(const std::vector<std::uint8_t>& code, Mode mode = Mode::k64) {
    engine.run(code, mode, m);
    return m.exception;
  }
  template <class T>
  void put(std::size_t at, T value) {
    store<T>(m.data.data() + at, value);
  }
  template <class T>
  [[nodiscard]] T xmm(unsigned n, std::size_t element) const {
    return load<T>(m.regs.fx.data() + kFxXmm + n * 16 + element * sizeof(T));
  }
  template <class T>
  void set_xmm(unsigned n, std::size_t element, T value) {
    store<T>(m.regs.fx.data() + kFxXmm + n * 16 + element * sizeof(T), value);
  }
};

}  // namespace

TEST_CASE_METHOD(Amd, "0F 0D fetches a line, and with a register is undefined") {
  CHECK(run({0x0f, 0x0d, 0x0b}) == kNoException);
  CHECK(run({0x0f, 0x0d, 0xcb}) == kUd);
  CHECK(run({0x0f, 0x1f, 0xcb}) == kNoException);
}

TEST_CASE_METHOD(Amd, "the last of F2 and F3 is LOOPcc's condition") {
  struct Row {
    std::vector<std::uint8_t> code;
    bool while_zero;
  };
  const auto row = GENERATE(Row{{0xe1, 0x5e}, true}, Row{{0xe0, 0x5e}, false}, Row{{0xf3, 0xe0, 0x5d}, true},
                            Row{{0xf2, 0xe1, 0x5d}, false}, Row{{0xf2, 0xf3, 0xe0, 0x5c}, true},
                            Row{{0xf3, 0xf2, 0xe1, 0x5c}, false}, Row{{0xf3, 0x48, 0xe0, 0x5c}, true},
                            Row{{0xf3, 0x48, 0xf2, 0xe1, 0x5b}, false});
  for (const bool zero : {false, true}) {
    m.regs.gpr[kRcx] = 2;
    m.regs.rflags = 0x202 | (zero ? kZf : 0);
    CHECK(run(row.code) == kNoException);
    CHECK(m.rip == (zero == row.while_zero ? kTaken : kCode + row.code.size()));
  }
}

TEST_CASE_METHOD(Amd, "an operand size prefix leaves near branches 16 bits") {  // APM vol. 3, CALL, JMP, Jcc, RET
  constexpr std::uint64_t kShort = kTaken & 0xffff;
  SECTION("JMP") { run({0x66, 0xeb, 0x5d}); }
  SECTION("Jcc") { run({0x66, 0x75, 0x5d}); }
  SECTION("LOOP") {
    m.regs.gpr[kRcx] = 2;
    run({0x66, 0xe2, 0x5d});
  }
  SECTION("JMP to a register") {
    m.regs.gpr[kRax] = kTaken;
    run({0x66, 0xff, 0xe0});
  }
  SECTION("CALL of a register") {
    m.regs.gpr[kRax] = kTaken;
    run({0x66, 0xff, 0xd0});
    CHECK(m.regs.gpr[kRsp] == kData + 0xffe);
    CHECK(load<std::uint16_t>(m.data.data() + 0xffe) == (kCode & 0xffff) + 3);
  }
  SECTION("RET") {
    put<std::uint16_t>(0x1000, kShort);
    run({0x66, 0xc3});
    CHECK(m.regs.gpr[kRsp] == kData + 0x1002);
  }
  CHECK(m.exception == kNoException);
  CHECK(m.rip == kShort);
}

TEST_CASE_METHOD(Amd, "with REX.W they have 64 bits, and not taken they go on") {
  run({0x66, 0x48, 0xeb, 0x5c});
  CHECK(m.rip == kTaken);
  run({0x66, 0x66, 0x48, 0xe8, 0x58, 0x00, 0x00, 0x00});  // as linkers lay out calls of __tls_get_addr
  CHECK(m.rip == kTaken);
  CHECK(load<std::uint64_t>(m.data.data() + 0xff8) == kCode + 8);
  run({0x66, 0x74, 0x5d});
  CHECK(m.rip == kCode + 3);
}

TEST_CASE_METHOD(Amd, "CALL looks at stack and target before it pushes") {
  m.regs.gpr[kRax] = kNowhere;
  put(0xff8, std::uint64_t{0x1111});
  CHECK(run({0xff, 0xd0}) == kGp);
  CHECK(load<std::uint64_t>(m.data.data() + 0xff8) == 0x1111);
  CHECK(m.regs.gpr[kRsp] == kData + 0x1000);
  m.regs.gpr[kRsp] = kData;
  CHECK(run({0xff, 0xd0}) == kPf);
  CHECK(m.cr2 == kData - 8);
}

TEST_CASE_METHOD(Amd, "BOUND and MOVSXD read their whole operand") {
  put<std::uint32_t>(kDataSize - 4, 7);
  m.regs.gpr[kRbx] = kEnd - 4;
  SECTION("BOUND") {
    m.regs.gpr[kRax] = 1;  // below the lower bound
    CHECK(run({0x62, 0x03}, Mode::k32) == kPf);
    CHECK(m.cr2 == kEnd);
  }
  SECTION("MOVSXD to 16 bits") {
    m.regs.gpr[kRax] = 0x123456789abcdef0;
    CHECK(run({0x66, 0x63, 0x03}) == kNoException);
    CHECK(m.regs.gpr[kRax] == 0x123456789abc0007);
    m.regs.gpr[kRbx] = kEnd - 2;
    CHECK(run({0x66, 0x63, 0x03}) == kPf);
    CHECK(m.cr2 == kEnd);
  }
}

TEST_CASE_METHOD(Amd, "SHA instructions take misaligned operands") {
  if (!emulator::host_extensions().sha) return;
  for (std::size_t n = 0; n < 16; ++n) put(n + 1, static_cast<std::uint8_t>(n * 17));
  put(0x20, load<std::array<std::byte, 16>>(m.data.data() + 1));
  CHECK(run({0x0f, 0x38, 0xc9, 0x43, 0x01}) == kNoException);  // sha1msg1 xmm0, [rbx+1]
  CHECK(run({0x0f, 0x38, 0xc9, 0x4b, 0x20}) == kNoException);  // sha1msg1 xmm1, [rbx+32]
  CHECK(xmm<std::uint64_t>(0, 0) == xmm<std::uint64_t>(1, 0));
  CHECK(xmm<std::uint64_t>(0, 1) == xmm<std::uint64_t>(1, 1));
  CHECK(xmm<std::uint64_t>(0, 0) != 0);
  CHECK(run({0x66, 0x0f, 0xfc, 0x43, 0x01}) == kGp);  // paddb xmm0, [rbx+1]
}

TEST_CASE_METHOD(Amd, "with MXCSR.MM, shifts and unpacks of low halves read eight bytes") {
  constexpr std::uint32_t kMm = 0x21f80;
  store(m.regs.fx.data() + kFxMxcsr, kMm);
  m.regs.gpr[kRbx] = kEnd - 8;
  put<std::uint64_t>(kDataSize - 8, 4);
  set_xmm<std::uint64_t>(0, 0, 0x10);
  CHECK(run({0x66, 0x0f, 0xf3, 0x03}) == kNoException);  // psllq xmm0, [rbx]
  CHECK(xmm<std::uint64_t>(0, 0) == 0x100);
  CHECK(run({0x66, 0x0f, 0x6c, 0x03}) == kNoException);  // punpcklqdq xmm0, [rbx]
  CHECK(xmm<std::uint64_t>(0, 1) == 4);
  CHECK(run({0x66, 0x0f, 0x6d, 0x03}) == kPf);  // punpckhqdq xmm0, [rbx]
}

TEST_CASE_METHOD(Amd, "VPEXTRQ and VPINSRQ do not exist in 32-bit code") {
  if (!emulator::host_extensions().avx) return;
  CHECK(run({0xc4, 0xe3, 0xf9, 0x16, 0xc0, 0x00}, Mode::k32) == kUd);
  CHECK(run({0xc4, 0xe3, 0x79, 0x16, 0xc0, 0x00}, Mode::k32) == kNoException);
  CHECK(run({0xc4, 0xe3, 0xf9, 0x22, 0xc0, 0x00}, Mode::k32) == kUd);
  CHECK(run({0xc4, 0xe3, 0x79, 0x22, 0xc0, 0x00}, Mode::k32) == kNoException);
}

TEST_CASE_METHOD(Amd, "a store looks at the page before the number") {
  m.regs.gpr[kRbx] = kEnd;
  SECTION("VCVTPS2PH") {
    if (!emulator::host_extensions().f16c) return;
    const auto mxcsr = GENERATE(std::uint32_t{0x1f80}, std::uint32_t{0});
    store(m.regs.fx.data() + kFxMxcsr, mxcsr);
    set_xmm<std::uint32_t>(0, 0, 0x7f800001);                 // a signalling NaN
    CHECK(run({0xc4, 0xe3, 0x79, 0x1d, 0x03, 0x00}) == kPf);  // vcvtps2ph [rbx], xmm0, 0
    CHECK(load<std::uint32_t>(m.regs.fx.data() + kFxMxcsr) == mxcsr);
  }
  SECTION("FISTP of an empty register") {
    store(m.regs.fx.data(), std::uint16_t{0x0340});  // nothing masked
    CHECK(run({0xdb, 0x1b}) == kPf);
    CHECK(load<std::uint16_t>(m.regs.fx.data() + 2) == 0);
    m.regs.gpr[kRbx] = kData;
    put<std::uint32_t>(0, 0x1111);
    CHECK(run({0xdb, 0x1b}) == kNoException);
    CHECK(load<std::uint16_t>(m.regs.fx.data() + 2) == 0x80c1);  // B, ES, SF, IE
    CHECK(load<std::uint32_t>(m.data.data()) == 0x1111);
  }
}

TEST_CASE_METHOD(Amd, "a gather that faults leaves the rest of its mask alone") {
  if (!emulator::host_extensions().avx2) return;
  constexpr std::uint32_t kChosen = 0x80001234;
  constexpr std::uint32_t kNot = 0x1234;
  // vpgatherdd xmm0, [rbx+xmm1], xmm2: elements 0 and 3 are not chosen, element 2 faults.
  for (std::size_t i = 0; i < 4; ++i) {
    set_xmm<std::uint32_t>(1, i, i == 2 ? kDataSize : 4 * static_cast<std::uint32_t>(i));
    set_xmm<std::uint32_t>(2, i, i == 0 || i == 3 ? kNot : kChosen);
  }
  put<std::uint32_t>(4, 0x4444);
  m.regs.ymm_high[0][5] = m.regs.ymm_high[2][5] = std::byte{5};
  CHECK(run({0xc4, 0xe2, 0x69, 0x90, 0x04, 0x0b}) == kPf);
  CHECK(m.cr2 == kEnd);
  CHECK(xmm<std::uint32_t>(0, 1) == 0x4444);
  CHECK(xmm<std::uint32_t>(2, 0) == 0);
  CHECK(xmm<std::uint32_t>(2, 1) == 0);
  CHECK(xmm<std::uint32_t>(2, 2) == kChosen);
  CHECK(xmm<std::uint32_t>(2, 3) == kNot);
  CHECK(m.regs.ymm_high[0][5] == std::byte{5});
  CHECK(m.regs.ymm_high[2][5] == std::byte{5});
  // Taken up again, it is complete.
  set_xmm<std::uint32_t>(1, 2, 8);
  put<std::uint32_t>(8, 0x8888);
  CHECK(run({0xc4, 0xe2, 0x69, 0x90, 0x04, 0x0b}) == kNoException);
  CHECK(xmm<std::uint32_t>(0, 2) == 0x8888);
  for (std::size_t i = 0; i < 4; ++i) CHECK(xmm<std::uint32_t>(2, i) == 0);
  CHECK(m.regs.ymm_high[0][5] == std::byte{0});
  CHECK(m.regs.ymm_high[2][5] == std::byte{0});
}

TEST_CASE_METHOD(Amd, "FXRSTOR64 keeps 48 bits of x87's pointers, and FXSAVE64 extends them") {
  // FCW and FSW with a pending exception, FOP, pointers.
  store(m.data.data(), std::uint16_t{0x037b});
  store(m.data.data() + 2, std::uint16_t{0x0004});
  store(m.data.data() + 6, std::uint16_t{0xffff});
  store(m.data.data() + 8, std::uint64_t{0x0000800012345678});
  store(m.data.data() + 16, std::uint64_t{0x1234012345678abc});
  store(m.data.data() + kFxMxcsr, std::uint32_t{0x1f80});
  CHECK(run({0x48, 0x0f, 0xae, 0x0b}) == kNoException);
  m.regs.gpr[kRbx] = kData + 1024;
  CHECK(run({0x48, 0x0f, 0xae, 0x03}) == kNoException);
  CHECK(load<std::uint16_t>(m.data.data() + 1024 + 6) == 0x7ff);
  CHECK(load<std::uint64_t>(m.data.data() + 1024 + 8) == 0xffff800012345678);
  CHECK(load<std::uint64_t>(m.data.data() + 1024 + 16) == 0x12345678abc);
}

TEST_CASE_METHOD(Amd, "EXTRQ and INSERTQ clear the upper half") {
  set_xmm<std::uint64_t>(0, 0, 0x1234);
  set_xmm<std::uint64_t>(0, 1, 0x5678);
  SECTION("EXTRQ") {
    CHECK(run({0x66, 0x0f, 0x78, 0xc0, 0x08, 0x04}) == kNoException);
    CHECK(xmm<std::uint64_t>(0, 0) == 0x23);
  }
  SECTION("INSERTQ") {
    set_xmm<std::uint64_t>(1, 0, 0xab);
    CHECK(run({0xf2, 0x0f, 0x78, 0xc1, 0x08, 0x04}) == kNoException);
    CHECK(xmm<std::uint64_t>(0, 0) == 0x1ab4);
  }
  CHECK(xmm<std::uint64_t>(0, 1) == 0);
}

}  // namespace sevisor::cpu_diff
