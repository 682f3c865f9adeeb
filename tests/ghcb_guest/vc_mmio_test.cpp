#include <catch2/catch.hpp>

#include "ghcb/guest/vc_handler.hpp"
#include "tests/ghcb_guest/fake_platform.hpp"

namespace {
using namespace sevisor::ghcb;
using namespace sevisor::ghcb::guest;
using sevisor::test::FakePlatform;
using sevisor::test::succeed;
using Outcome = VcResult::Outcome;

constexpr std::uint64_t kDeviceData = 0x0123456789abcdef;

struct Machine {
  FakePlatform platform;
  Registers registers;
  VcHandler handler{platform, 1};

  explicit Machine(std::vector<std::uint8_t> code) {
    platform.code = std::move(code);
    registers.rip = FakePlatform::kCode;
    registers.general[kRbx] = FakePlatform::kDevice;
    registers.general[kRax] = 0x1122334455667788;
    platform.hypervisor = [](Page& page) {
      if (page.exit_code == kExitMmioRead) std::memcpy(page.shared_buffer, &kDeviceData, sizeof kDeviceData);
      succeed(page, {});
    };
  }
  VcResult handle() { return handler.handle(registers, kExitNpf); }
  [[nodiscard]] std::uint64_t sent(std::size_t size) const {
    std::uint64_t value = 0;
    std::memcpy(&value, platform.last_request.shared_buffer, size);
    return value;
  }
};

TEST_CASE("stores send their bytes to the device", "[ghcb_guest][mmio]") {
  struct Case {
    std::vector<std::uint8_t> code;
    std::uint64_t address, size, value;
  };
  const Case cases[] = {
      {{0x88, 0x43, 0x10}, 0x10, 1, 0x88},                                     // mov [rbx+16], al
      {{0x88, 0x23}, 0, 1, 0x77},                                              // mov [rbx], ah
      {{0x66, 0x89, 0x03}, 0, 2, 0x7788},                                      // mov [rbx], ax
      {{0x89, 0x83, 0x00, 0x03, 0, 0}, 0x300, 4, 0x55667788},                  // mov [rbx+0x300], eax
      {{0x48, 0x89, 0x03}, 0, 8, 0x1122334455667788},                          // mov [rbx], rax
      {{0xc6, 0x03, 0x5a}, 0, 1, 0x5a},                                        // mov byte [rbx], 0x5a
      {{0xc7, 0x43, 0x04, 4, 3, 2, 1}, 4, 4, 0x01020304},                      // mov dword [rbx+4], imm
      {{0x48, 0xc7, 0x03, 0xfe, 0xff, 0xff, 0xff}, 0, 8, 0xfffffffffffffffe},  // mov qword [rbx], -2
      {{0xa3, 0x20, 0, 0xe0, 0xfe, 0, 0, 0, 0}, 0x20, 4, 0x55667788},          // mov [0xfee00020], eax
      {{0x67, 0xa2, 0x20, 0, 0xe0, 0xfe}, 0x20, 1, 0x88},                      // mov [0xfee00020], al
  };
  for (const auto& expected : cases) {
    Machine machine(expected.code);
    REQUIRE(machine.handle().outcome == Outcome::kResume);
    const Page& request = machine.platform.last_request;
    REQUIRE(request.exit_code == 0x80000002);
    REQUIRE(request.exit_info_1 == FakePlatform::kDevice + expected.address);
    REQUIRE(request.exit_info_2 == expected.size);
    REQUIRE(request.scratch == FakePlatform::kGhcb + 0x800);
    REQUIRE(machine.sent(8) == expected.value);
    REQUIRE(machine.registers.rip == FakePlatform::kCode + expected.code.size());
  }
}

TEST_CASE("loads take their bytes from the device", "[ghcb_guest][mmio]") {
  struct Case {
    std::vector<std::uint8_t> code;
    std::uint64_t size, rax;
  };
  const Case cases[] = {
      {{0x8a, 0x03}, 1, 0x11223344556677ef},                  // mov al, [rbx]
      {{0x8a, 0x23}, 1, 0x112233445566ef88},                  // mov ah, [rbx]
      {{0x66, 0x8b, 0x03}, 2, 0x112233445566cdef},            // mov ax, [rbx]
      {{0x8b, 0x03}, 4, 0x89abcdef},                          // mov eax, [rbx]
      {{0x48, 0x8b, 0x03}, 8, kDeviceData},                   // mov rax, [rbx]
      {{0x0f, 0xb6, 0x03}, 1, 0xef},                          // movzx eax, byte [rbx]
      {{0x0f, 0xb7, 0x03}, 2, 0xcdef},                        // movzx eax, word [rbx]
      {{0x0f, 0xbe, 0x03}, 1, 0xffffffef},                    // movsx eax, byte [rbx]
      {{0x48, 0x0f, 0xbf, 0x03}, 2, 0xffffffffffffcdef},      // movsx rax, word [rbx]
      {{0x66, 0x0f, 0xbe, 0x03}, 1, 0x112233445566ffef},      // movsx ax, byte [rbx]
      {{0xa1, 0, 0, 0xe0, 0xfe, 0, 0, 0, 0}, 4, 0x89abcdef},  // mov eax, [0xfee00000]
  };
  for (const auto& expected : cases) {
    Machine machine(expected.code);
    REQUIRE(machine.handle().outcome == Outcome::kResume);
    REQUIRE(machine.platform.last_request.exit_code == 0x80000001);
    REQUIRE(machine.platform.last_request.exit_info_1 == FakePlatform::kDevice);
    REQUIRE(machine.platform.last_request.exit_info_2 == expected.size);
    REQUIRE(machine.registers.general[kRax] == expected.rax);
    REQUIRE(machine.registers.rip == FakePlatform::kCode + expected.code.size());
  }
}

TEST_CASE("RIP-relative operands count from the next instruction", "[ghcb_guest][mmio]") {
  // mov dword [rip+d], imm32: the immediate counts into the instruction's length, 10 bytes.
  constexpr std::uint64_t kDistance = FakePlatform::kDevice - FakePlatform::kCode - 10;
  std::vector<std::uint8_t> code = {0xc7, 0x05, 0, 0, 0, 0, 1, 0, 0, 0};
  // The device is out of reach of a 32-bit displacement, so the segment base bridges the rest.
  Machine machine(code);
  machine.platform.code.insert(machine.platform.code.begin(), 0x65);
  machine.platform.bases[SegmentOverride::kGs] = kDistance - 1;
  REQUIRE(machine.handle().outcome == Outcome::kResume);
  REQUIRE(machine.platform.last_request.exit_info_1 == FakePlatform::kDevice);
}

TEST_CASE("private, unmapped and page-crossing operands are refused without an exit", "[ghcb_guest][mmio]") {
  for (const std::uint64_t address : {FakePlatform::kMemory, FakePlatform::kUnmapped, FakePlatform::kDevice + 0xffd}) {
    for (const std::uint8_t opcode : {std::uint8_t{0x89}, std::uint8_t{0x8b}}) {
      Machine machine({opcode, 0x03});
      machine.registers.general[kRbx] = address;
      REQUIRE(machine.handle().outcome == Outcome::kRefused);
      REQUIRE(machine.platform.exits == 0);
      REQUIRE(machine.registers.general[kRax] == 0x1122334455667788);
    }
  }
}

TEST_CASE("REP STOSD writes one element a #VC", "[ghcb_guest][mmio]") {
  Machine machine({0xf3, 0xab});
  machine.registers.general[kRdi] = FakePlatform::kDevice;
  machine.registers.general[kRcx] = 3;
  for (unsigned i = 1; i <= 3; ++i) {
    REQUIRE(machine.registers.rip == FakePlatform::kCode);
    REQUIRE(machine.handle().outcome == Outcome::kResume);
    REQUIRE(machine.platform.exits == i);
    REQUIRE(machine.sent(4) == 0x55667788);
  }
  REQUIRE(machine.registers.rip == FakePlatform::kCode + 2);
  REQUIRE(machine.registers.general[kRcx] == 0);
  REQUIRE(machine.registers.general[kRdi] == FakePlatform::kDevice + 12);
}

TEST_CASE("MOVS moves between device and private memory only", "[ghcb_guest][mmio]") {
  Machine in({0xa5});  // movsd
  in.registers.general[kRsi] = FakePlatform::kDevice;
  in.registers.general[kRdi] = FakePlatform::kMemory;
  REQUIRE(in.handle().outcome == Outcome::kResume);
  REQUIRE(in.platform.memory[0] == 0xef);
  REQUIRE(in.platform.memory[3] == 0x89);
  REQUIRE(in.platform.memory[4] == 0);
  REQUIRE(in.registers.general[kRsi] == FakePlatform::kDevice + 4);

  Machine out({0x48, 0xa5});  // movsq
  out.registers.general[kRsi] = FakePlatform::kMemory;
  out.registers.general[kRdi] = FakePlatform::kDevice;
  out.platform.memory[0] = 0x42;
  REQUIRE(out.handle().outcome == Outcome::kResume);
  REQUIRE(out.sent(8) == 0x42);

  Machine both({0xa5});
  both.registers.general[kRsi] = FakePlatform::kDevice;
  both.registers.general[kRdi] = FakePlatform::kDevice + 0x100;
  REQUIRE(both.handle().outcome == Outcome::kRefused);
  REQUIRE(both.platform.exits == 0);
}
}  // namespace
