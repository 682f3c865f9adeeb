// 16-bit code, which the host's processor cannot be made to run here: answers from the APM, vol. 3.
#include <catch2/catch.hpp>
#include <cstring>

#include "base/bytes.hpp"
#include "tests/cpu_diff/engine.hpp"

namespace sevisor::cpu_diff {

namespace {

constexpr std::uint64_t kHigh = 0xabcd0000'00000000;  // must not change
constexpr std::uint64_t kFlagCf = 1;
constexpr std::uint64_t kFlagZf = 0x40;
constexpr std::uint64_t kFlagDf = 0x400;
enum Gpr : std::uint8_t { kAx, kCx, kDx, kBx, kSp, kBp, kSi, kDi };

struct Sixteen {
  Engine engine;
  Machine m;

  Sixteen() {
    m.regs = initial_registers();
    m.regs.gpr[kSp] = 0x1000;
  }
  void run(std::initializer_list<std::uint8_t> code) { engine.run(std::span(code.begin(), code.size()), Mode::k16, m); }
  [[nodiscard]] std::uint16_t word(std::size_t at) const { return load<std::uint16_t>(m.data.data() + at); }
  void put(std::size_t at, std::uint16_t value) { store<std::uint16_t>(m.data.data() + at, value); }
};

}  // namespace

TEST_CASE_METHOD(Sixteen, "16-bit PUSH and POP move SP by the operand size") {
  m.regs.gpr[kSp] = kHigh | 0x1000;
  m.regs.gpr[kAx] = 0x12345678;
  run({0x50});  // push ax
  CHECK(m.regs.gpr[kSp] == (kHigh | 0xffe));
  CHECK(word(0xffe) == 0x5678);
  run({0x66, 0x50});  // push eax
  CHECK(m.regs.gpr[kSp] == (kHigh | 0xffa));
  CHECK(load<std::uint32_t>(m.data.data() + 0xffa) == 0x12345678);
  run({0x5b});  // pop bx
  CHECK(m.regs.gpr[kBx] == 0x5678);
  CHECK(m.regs.gpr[kSp] == (kHigh | 0xffc));
  run({0x6a, 0xfe});  // push -2
  CHECK(word(0xffa) == 0xfffe);
  run({0x54});  // push sp: the value before
  CHECK(word(0xff8) == 0xffa);
}

TEST_CASE_METHOD(Sixteen, "16-bit CALL, RET and their offsets wrap at 64 KiB") {
  m.regs.gpr[kSp] = 0x10;
  run({0xe8, 0xfd, 0xff});  // call itself
  CHECK(m.rip == (kCode & 0xffff));
  CHECK(word(0xe) == (kCode & 0xffff) + 3);
  run({0xe9, 0x00, 0xff});  // jmp 0x100 - 3 bytes back: below 0
  CHECK(m.rip == (((kCode & 0xffff) + 3 - 0x100) & 0xffff));
  run({0xc2, 0x04, 0x00});  // ret 4
  CHECK(m.rip == (kCode & 0xffff) + 3);
  CHECK(m.regs.gpr[kSp] == 0x14);
}

TEST_CASE_METHOD(Sixteen, "the stack pointer wraps at 64 KiB") {
  // SP 0 is pushed to offset 0xfffe, which is not mapped here: the fault's address tells.
  m.regs.gpr[kSp] = kHigh;
  run({0x50});
  CHECK(m.exception == 14);
  CHECK(m.cr2 == kData + 0xfffe);
  CHECK(m.regs.gpr[kSp] == kHigh);
}

TEST_CASE_METHOD(Sixteen, "PUSHA stores AX CX DX BX SP BP SI DI and POPA takes all back but SP") {
  for (std::size_t n = 0; n < 8; ++n) m.regs.gpr[n] = 0x1111 * n;
  m.regs.gpr[kSp] = 0x100;
  run({0x60});
  CHECK(m.regs.gpr[kSp] == 0xf0);
  CHECK(word(0xfe) == 0);
  CHECK(word(0xfc) == 0x1111);
  CHECK(word(0xf6) == 0x100);
  CHECK(word(0xf0) == 0x7777);
  put(0xf6, 0xdead);
  put(0xfc, 0xbeef);
  run({0x61});
  CHECK(m.regs.gpr[kSp] == 0x100);
  CHECK(m.regs.gpr[kCx] == 0xbeef);
  CHECK(m.regs.gpr[kDi] == 0x7777);
}

TEST_CASE_METHOD(Sixteen, "ENTER and LEAVE keep the frame in BP") {
  m.regs.gpr[kBp] = 0x800;
  put(0x7fe, 0x4321);          // the outer frame's first link
  run({0xc8, 0x10, 0x00, 2});  // enter 16, 2
  CHECK(word(0xffe) == 0x800);
  CHECK(word(0xffc) == 0x4321);
  CHECK(word(0xffa) == 0xffe);
  CHECK(m.regs.gpr[kBp] == 0xffe);
  CHECK(m.regs.gpr[kSp] == 0xffa - 0x10);
  run({0xc9});
  CHECK(m.regs.gpr[kBp] == 0x800);
  CHECK(m.regs.gpr[kSp] == 0x1000);
}

TEST_CASE_METHOD(Sixteen, "BP and SP addresses use SS, the others DS") {
  m.regs.gpr[kBp] = 0x20;
  m.regs.gpr[kBx] = 0x10;
  m.regs.gpr[kSi] = 0xfff8;
  put(0x18, 0x55aa);
  run({0x8b, 0x42, 0x00});  // mov ax, [bp+si]: 0x20 + 0xfff8 wraps to 0x18
  CHECK((m.regs.gpr[kAx] & 0xffff) == 0x55aa);
  run({0x8d, 0x40, 0x7f});  // lea ax, [bx+si+0x7f]
  CHECK((m.regs.gpr[kAx] & 0xffff) == 0x87);
  m.regs.gpr[kAx] = 8;
  run({0xd7});  // xlat
  CHECK(m.regs.gpr[kAx] == 0xaa);
}

TEST_CASE_METHOD(Sixteen, "LOOP counts in CX, and in ECX with an address size prefix") {
  m.regs.gpr[kCx] = 0xffff0001;
  run({0xe2, 0x10});  // loop: CX reaches 0
  CHECK(m.rip == (kCode & 0xffff) + 2);
  CHECK(m.regs.gpr[kCx] == 0xffff0000);
  run({0x67, 0xe2, 0x10});
  CHECK(m.rip == (kCode & 0xffff) + 0x13);
  CHECK(m.regs.gpr[kCx] == 0xfffeffff);
  m.regs.gpr[kCx] = 0xffff0000;
  run({0xe3, 0x10});  // jcxz
  CHECK(m.rip == (kCode & 0xffff) + 0x12);
  run({0x67, 0xe3, 0x10});  // jecxz
  CHECK(m.rip == (kCode & 0xffff) + 3);
}

TEST_CASE_METHOD(Sixteen, "string pointers wrap at 64 KiB and leave the upper halves alone") {
  m.regs.gpr[kCx] = 3;
  m.regs.gpr[kSi] = kHigh | 0x10;
  m.regs.gpr[kDi] = kHigh | 2;
  m.regs.rflags |= kFlagDf;
  put(0x10, 1);
  put(0xe, 2);
  put(0xc, 3);
  run({0xf3, 0xa5});  // rep movsw, downwards over offset 0 to 0xfffe, which faults
  CHECK(m.exception == 14);
  CHECK(m.cr2 == kData + 0xfffe);
  CHECK(word(2) == 1);
  CHECK(word(0) == 2);
  CHECK(m.regs.gpr[kCx] == 1);
  CHECK(m.regs.gpr[kSi] == (kHigh | 0xc));
  CHECK(m.regs.gpr[kDi] == (kHigh | 0xfffe));
}

TEST_CASE_METHOD(Sixteen, "REPNE SCASB finds the end of a string") {
  std::memcpy(m.data.data() + 0x40, "seven", 6);
  m.regs.gpr[kDi] = 0x40;
  m.regs.gpr[kCx] = 0xffff;
  m.regs.gpr[kAx] = 0;
  run({0xf2, 0xae});
  CHECK(m.regs.gpr[kDi] == 0x46);
  CHECK(m.regs.gpr[kCx] == 0xffff - 6);
  CHECK((m.regs.rflags & kFlagZf) != 0);
}

TEST_CASE_METHOD(Sixteen, "a bit's number in a register reaches beyond the word") {
  m.regs.gpr[kBx] = 0x100;
  m.regs.gpr[kAx] = 0xffff;  // bit -1: the top one of the word before
  run({0x0f, 0xab, 0x07});   // bts [bx], ax
  CHECK(word(0xfe) == 0x8000);
  CHECK((m.regs.rflags & kFlagCf) == 0);
  run({0x0f, 0xb3, 0x07});  // btr [bx], ax
  CHECK(word(0xfe) == 0);
  CHECK((m.regs.rflags & kFlagCf) != 0);
}

TEST_CASE_METHOD(Sixteen, "DAA, AAM and AAD give the manuals' examples") {
  m.regs.gpr[kAx] = 0x79;
  m.regs.gpr[kBx] = 0x35;
  run({0x00, 0xd8});  // add al, bl: 0xae
  run({0x27});        // daa
  CHECK((m.regs.gpr[kAx] & 0xff) == 0x14);
  CHECK((m.regs.rflags & kFlagCf) != 0);
  m.regs.gpr[kAx] = 47;
  run({0xd4, 0x0a});  // aam
  CHECK(m.regs.gpr[kAx] == 0x0407);
  run({0xd5, 0x0a});  // aad
  CHECK(m.regs.gpr[kAx] == 47);
  run({0xd4, 0x00});  // aam 0
  CHECK(m.exception == 0);
}

TEST_CASE_METHOD(Sixteen, "a failed POP to memory leaves SP") {
  m.regs.gpr[kBx] = 0x8000;
  run({0x8f, 0x07});  // pop word [bx]
  CHECK(m.exception == 14);
  CHECK(m.regs.gpr[kSp] == 0x1000);
}

}  // namespace sevisor::cpu_diff
