// What an ordinary guest's ports and memory without slots lead to. Expected: what Linux' KVM does on this machine's
// processor (SEVISOR_TEST_HOST=kernel), and its source where that cannot run the guest.
#include "tests/emulator_ordinary/guest.hpp"

using namespace sevisor;
using namespace sevisor::test;

TEST_CASE_METHOD(Guest, "ports: sizes, data, and RIP at the instruction") {
  code({0x66, 0xba, 0x34, 0x12,                 // mov dx, 0x1234
        0xb0, 0x41, 0xee,                       // mov al, 'A'; out dx, al
        0xb8, 4,    3,    2,    1, 0x66, 0xef,  // mov eax, 0x01020304; out dx, ax
        0xe7, 0x80,                             // out 0x80, eax
        0xe4, 0x71, 0xe5, 0x72,                 // in al, 0x71; in eax, 0x72
        0xf4});
  expect_port(false, 1, 0x1234);
  CHECK(load<std::uint8_t>(port_data()) == 0x41);
  // kvm_amd's quick way; a KVM that emulates all of ring 0 is behind the instruction.
  if (!on_kernel()) CHECK(regs().rip == kCode + 6);
  expect_port(false, 2, 0x1234);
  CHECK(load<std::uint16_t>(port_data()) == 0x0304);
  expect_port(false, 4, 0x80);
  CHECK(load<std::uint32_t>(port_data()) == 0x01020304);
  expect_port(true, 1, 0x71);
  store(port_data(), std::uint8_t{0xee});
  expect_port(true, 4, 0x72);
  CHECK(regs().rax == 0x010203ee);
  store(port_data(), std::uint32_t{0xdeadbeef});
  REQUIRE(run() == KVM_EXIT_HLT);
  CHECK(regs().rax == 0xdeadbeef);
  CHECK(regs().rip == kCode + 21);
}

TEST_CASE_METHOD(Guest, "OUT to port 0x7e has RIP behind it; a RIP that user space moves away stays") {
  code({0xe6, 0x7e, 0xe6, 0x80, 0xf4});
  expect_port(false, 1, 0x7e);
  CHECK(regs().rip == kCode + 2);
  expect_port(false, 1, 0x80);
  set_regs([](kvm_regs& r) { r.rip = kCode + 4; });
  REQUIRE(run() == KVM_EXIT_HLT);
  CHECK(regs().rip == kCode + 5);
}

TEST_CASE_METHOD(Guest, "OUTS goes out element by element, INS comes in by the page") {
  std::memcpy(ram.data() + kData, "ABC", 3);
  set_regs([](kvm_regs& r) {
    r.rsi = kData;
    r.rcx = 3;
    r.rdx = 0x50;
  });
  code({0xf3, 0x6e,                                     // rep outsb
        0xb9, 5,    0,    0,    0,                      // mov ecx, 5
        0xbf, 0xfe, 0x1f, 1,    0,   0xf3, 0x6c,        // mov edi, 0x11ffe; rep insb
        0xb9, 2,    0,    0,    0,   0xfd, 0xf3, 0x6d,  // mov ecx, 2; std; rep insd
        0xf3, 0x6e, 0x66, 0x6d, 0xf4});                 // rep outsb with ecx 0; insw; hlt
  for (const char c : {'A', 'B', 'C'}) {
    expect_port(false, 1, 0x50);
    CHECK(load<char>(port_data()) == c);
  }
  CHECK(regs().rsi == kData + 3);
  CHECK(regs().rcx == 0);
  expect_port(true, 1, 0x50, 2);
  std::memcpy(port_data(), "ab", 2);
  expect_port(true, 1, 0x50, 3);
  CHECK(regs().rcx == 3);
  CHECK(regs().rdi == 0x12000);
  std::memcpy(port_data(), "cde", 3);
  expect_port(true, 4, 0x50, 2);
  CHECK(std::memcmp(ram.data() + 0x11ffe, "abcde", 5) == 0);
  CHECK(regs().rdi == 0x12003);
  const std::uint32_t words[] = {0x11111111, 0x22222222};
  std::memcpy(port_data(), words, sizeof words);
  expect_port(true, 2, 0x50);
  CHECK(load<std::uint32_t>(ram.data() + 0x12003) == 0x11111111);
  CHECK(load<std::uint32_t>(ram.data() + 0x11fff) == 0x22222222);
  store(port_data(), std::uint16_t{0x3333});
  REQUIRE(run() == KVM_EXIT_HLT);
  CHECK(load<std::uint16_t>(ram.data() + 0x11ffb) == 0x3333);
}

TEST_CASE_METHOD(Guest, "memory without a slot is read and written by user space") {
  code({0xa3, 0,    0,    0, 0xd0,              // mov [kDevice], eax
        0x88, 0x25, 1,    0, 0,    0xd0,        // mov [kDevice + 1], ah
        0x0f, 0xbe, 0x1d, 2, 0,    0,    0xd0,  // movsx ebx, byte [kDevice + 2]
        0x66, 0x8b, 0x0d, 4, 0,    0,    0xd0,  // mov cx, [kDevice + 4]
        0xf4});
  set_regs([](kvm_regs& r) {
    r.rax = 0x01020304;
    r.rcx = 0x55555555;
  });
  expect_mmio(true, kDevice, 4);
  CHECK((mmio_value() & 0xffffffff) == 0x01020304);
  CHECK(regs().rip == kCode + 5);  // a write is done before user space hears of it
  expect_mmio(true, kDevice + 1, 1);
  CHECK((mmio_value() & 0xff) == 3);
  expect_mmio(false, kDevice + 2, 1);
  CHECK(regs().rip == kCode + 11);  // a read is not
  answer_mmio(0x80);
  expect_mmio(false, kDevice + 4, 2);
  CHECK(regs().rbx == 0xffffff80);
  answer_mmio(0xabcd);
  REQUIRE(run() == KVM_EXIT_HLT);
  CHECK(regs().rcx == 0x5555abcd);
}

TEST_CASE_METHOD(Guest, "an access across pages is two, and read-modify-write is a read and a write") {
  code({0x8b, 0x05, 0xfd, 0x0f, 0, 0xd0,        // mov eax, [kDevice + 0xffd]
        0x89, 0x05, 0xff, 0x1f, 0, 0xd0,        // mov [kDevice + 0x1fff], eax
        0x83, 0x0d, 0x10, 0,    0, 0xd0, 0x11,  // or dword [kDevice + 0x10], 0x11
        0x87, 0x1d, 0x20, 0,    0, 0xd0,        // xchg [kDevice + 0x20], ebx
        0xff, 0x35, 0x30, 0,    0, 0xd0,        // push dword [kDevice + 0x30]
        0xf4});
  set_regs([](kvm_regs& r) { r.rbx = 0x77; });
  expect_mmio(false, kDevice + 0xffd, 3);
  answer_mmio(0x332211);
  expect_mmio(false, kDevice + 0x1000, 1);
  answer_mmio(0x44);
  expect_mmio(true, kDevice + 0x1fff, 1);
  CHECK((mmio_value() & 0xff) == 0x11);
  expect_mmio(true, kDevice + 0x2000, 3);
  CHECK((mmio_value() & 0xffffff) == 0x443322);
  expect_mmio(false, kDevice + 0x10, 4);
  answer_mmio(0x80000000);
  expect_mmio(true, kDevice + 0x10, 4);
  CHECK((mmio_value() & 0xffffffff) == 0x80000011);
  CHECK((regs().rflags & 0x80) != 0);  // SF
  expect_mmio(false, kDevice + 0x20, 4);
  answer_mmio(0x99);
  expect_mmio(true, kDevice + 0x20, 4);
  CHECK((mmio_value() & 0xffffffff) == 0x77);
  expect_mmio(false, kDevice + 0x30, 4);
  answer_mmio(0x12345678);
  REQUIRE(run() == KVM_EXIT_HLT);
  CHECK(regs().rbx == 0x99);
  CHECK(regs().rsp == kStack - 4);
  CHECK(load<std::uint32_t>(ram.data() + kStack - 4) == 0x12345678);
}

TEST_CASE_METHOD(Guest, "strings to and from devices go element by element") {
  const std::uint32_t words[] = {0x11111111, 0x22222222};
  std::memcpy(ram.data() + kData, words, sizeof words);
  set_regs([](kvm_regs& r) {
    r.rsi = kData;
    r.rdi = kDevice;
    r.rcx = 2;
  });
  code({0xf3, 0xa5,           // rep movsd
        0x89, 0xf7,           // mov edi, esi
        0xbe, 0, 0, 0, 0xd0,  // mov esi, kDevice
        0xb1, 2, 0xf3, 0xa4,  // mov cl, 2; rep movsb
        0xf4});
  for (unsigned i = 0; i < 2; ++i) {
    expect_mmio(true, kDevice + 4 * i, 4);
    CHECK((mmio_value() & 0xffffffff) == words[i]);
  }
  for (unsigned i = 0; i < 2; ++i) {
    expect_mmio(false, kDevice + i, 1);
    answer_mmio(0xa0 + i);
  }
  REQUIRE(run() == KVM_EXIT_HLT);
  CHECK(load<std::uint16_t>(ram.data() + kData + 8) == 0xa1a0);
  CHECK(regs().rcx == 0);
}

TEST_CASE_METHOD(Guest, "a read-only slot is read as memory and written as a device") {
  rom.data()[8] = std::byte{0x5a};
  code({0xa0, 8, 0, 0, 0xe0,        // mov al, [kRom + 8]
        0xfe, 0x05, 8, 0, 0, 0xe0,  // inc byte [kRom + 8]
        0xf4});
  expect_mmio(true, kRom + 8, 1);
  CHECK((mmio_value() & 0xff) == 0x5b);
  REQUIRE(run() == KVM_EXIT_HLT);
  CHECK((regs().rax & 0xff) == 0x5a);
  CHECK(rom.data()[8] == std::byte{0x5a});
}

TEST_CASE_METHOD(Guest, "code that is nowhere ends the guest with an error") {
  code({0xb8, 0, 0, 0, 0xd0, 0xff, 0xe0});  // mov eax, kDevice; jmp eax
  REQUIRE(run() == KVM_EXIT_INTERNAL_ERROR);
  CHECK(run_area->internal.suberror == KVM_INTERNAL_ERROR_EMULATION);
  CHECK(run_area->internal.ndata >= 1);
  CHECK(regs().rip == kDevice);
}

TEST_CASE_METHOD(Guest, "an exception that finds no handler is a shutdown") {
  SECTION("an MSR that is not there") { code({0xb9, 0x99, 0x99, 0, 0, 0x0f, 0x32}); }
  SECTION("one that cannot be written so") { code({0xb9, 0x1b, 0, 0, 0, 0x31, 0xc0, 0xba, 0, 0, 0, 0xf0, 0x0f, 0x30}); }
  SECTION("undefined") { code({0x0f, 0x0b}); }
  REQUIRE(run() == KVM_EXIT_SHUTDOWN);
}

TEST_CASE_METHOD(Guest, "CPUID answers from the vCPU's table") {
  kvm_cpuid2* table = nullptr;
  std::vector<std::byte> bytes(sizeof(kvm_cpuid2) + sizeof(kvm_cpuid_entry2));
  table = reinterpret_cast<kvm_cpuid2*>(bytes.data());
  table->nent = 1;
  table->entries[0] = {
      .function = 0x40000000, .index = 0, .flags = 0, .eax = 1, .ebx = 2, .ecx = 3, .edx = 4, .padding = {}};
  REQUIRE(call(vcpu, KVM_SET_CPUID2, table) == 0);
  code({0xb8, 0, 0, 0, 0x40, 0x0f, 0xa2, 0xf4});
  REQUIRE(run() == KVM_EXIT_HLT);
  const kvm_regs r = regs();
  CHECK(r.rax == 1);
  CHECK(r.rbx == 2);
  CHECK(r.rcx == 3);
  CHECK(r.rdx == 4);
}
