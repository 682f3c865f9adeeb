// What raises #VC, run by a guest that keeps the firmware's exception handlers: the #VC handler on a real (emulated)
// processor, each event by the instruction that causes it.
#include <catch2/catch.hpp>
#include <utility>

#include "boot_machine.hpp"
#include "firmware/failure.hpp"
#include "tests/firmware/small_elf.hpp"

namespace {
using namespace sevisor;
using namespace sevisor::test;
using firmware::Failure;
using Code = std::vector<std::uint8_t>;

constexpr unsigned kDevice[] = {0x00, 0x00, 0xd0, 0xfe};  // 0xfed00000, as an instruction has it
constexpr std::uint64_t kDeviceAddress = 0xfed00000;

Code end_of_guest() {
  Code code{0xb9, 0x30, 0x01, 0x01, 0xc0, 0xb8};  // mov ecx, GHCB MSR; mov eax, request
  const std::uint32_t request = 0x100 | kKernelReasonSet << 12 | kKernelReason << 16;
  for (unsigned i = 0; i < 4; ++i) code.push_back(static_cast<std::uint8_t>(request >> 8 * i));
  code.insert(code.end(), {0x31, 0xd2, 0x0f, 0x30, 0xf3, 0x0f, 0x01, 0xd9, 0xeb, 0xfe});  // wrmsr; vmgexit; jmp $
  return code;
}

struct Run {
  BootEnd end;
  std::vector<std::uint64_t> exits{};  // exit codes of all requests in the GHCB page
};

Run run(const std::vector<unsigned>& instructions) {
  Code code;
  for (const unsigned byte : instructions) code.push_back(static_cast<std::uint8_t>(byte));
  const Code rest = end_of_guest();
  code.insert(code.end(), rest.begin(), rest.end());
  std::vector<std::uint64_t> exits;
  BootMachine machine(
      {.page_reply = [&](std::uint64_t, std::uint64_t exit_code, ghcb::Page&) { exits.push_back(exit_code); }});
  machine.set_kernel(SmallElf{.code = code}.make());
  BootEnd end = machine.run(2'000'000);
  return {std::move(end), std::move(exits)};
}

// The firmware asks the same each time; what comes after that is the guest's.
std::vector<std::uint64_t> exits_of_guest(const Run& made) {
  static const std::size_t kOfFirmware = run({}).exits.size();
  REQUIRE(made.exits.size() >= kOfFirmware);
  return {made.exits.begin() + static_cast<std::ptrdiff_t>(kOfFirmware), made.exits.end()};
}

std::vector<unsigned> with_device(std::vector<unsigned> head, std::vector<unsigned> tail) {
  head.insert(head.end(), std::begin(kDevice), std::end(kDevice));
  head.insert(head.end(), tail.begin(), tail.end());
  return head;
}

TEST_CASE("each event by the instruction that causes it", "[firmware][boot][events]") {
  struct Case {
    const char* name;
    std::vector<unsigned> code;
    std::vector<std::uint64_t> exits;
  };
  const Case cases[] = {
      {"cpuid", {0x31, 0xc0, 0x0f, 0xa2}, {0x72}},
      {"rdmsr, wrmsr", {0xb9, 0x1b, 0, 0, 0, 0x0f, 0x32, 0x0f, 0x30}, {0x7c, 0x7c}},
      {"invd", {0x0f, 0x08}, {0x76}},
      {"wbinvd", {0x0f, 0x09}, {0x89}},
      {"mov dr7, rax; mov rbx, dr7", {0xb8, 0, 4, 0, 0, 0x0f, 0x23, 0xf8, 0x0f, 0x21, 0xfb}, {0x37}},
      {"monitor, mwait", {0x89, 0xe0, 0x31, 0xc9, 0x31, 0xd2, 0x0f, 0x01, 0xc8, 0x31, 0xc0, 0x0f, 0x01, 0xc9}, {}},
      {"vmmcall", {0x0f, 0x01, 0xd9}, {0x81}},
      {"in al; in eax", {0xe4, 0x71, 0xe5, 0x71}, {0x7b, 0x7b}},
      {"out al; out ax", {0xe6, 0x80, 0x66, 0xe7, 0x80}, {0x7b, 0x7b}},
      {"rep outsb", {0xbe, 0, 0, 9, 0, 0x66, 0xba, 0xf8, 3, 0xb9, 16, 0, 0, 0, 0xf3, 0x6e}, {0x7b}},
      {"mov eax, [rdi]; mov [rdi], eax", with_device({0xbf}, {0x8b, 0x07, 0x89, 0x07}), {0x80000001, 0x80000002}},
      {"movzx, movsx", with_device({0xbf}, {0x0f, 0xb6, 0x07, 0x48, 0x0f, 0xbf, 0x07}), {0x80000001, 0x80000001}},
      {"rep stosd", with_device({0xb9, 2, 0, 0, 0, 0xbf}, {0xf3, 0xab}), {0x80000002, 0x80000002}},
      {"movsd from the device", with_device({0xbf, 0, 0, 9, 0, 0xbe}, {0xa5}), {0x80000001}},
      {"movsb to the device", with_device({0xbe, 0, 0, 9, 0, 0xbf}, {0xa4}), {0x80000002}},
  };
  for (const Case& expected : cases) {
    const Run made = run(expected.code);
    INFO(expected.name << '\n' << made.end.console << made.end.text << "reason " << made.end.reason);
    CHECK(made.end.kernel_reached());
    CHECK(exits_of_guest(made) == expected.exits);
  }
}

// The string's other side is a device: while INS or OUTS is served, the handler itself causes a #VC for each byte.
TEST_CASE("a #VC in the handler finds the GHCB free and gives it back", "[firmware][boot][events]") {
  // out 0x510, 0 (the signature of fw_cfg); rep insb from 0x511 to the device
  const Run in = run(with_device(
      {0x66, 0xba, 0x10, 5, 0x31, 0xc0, 0x66, 0xef, 0x66, 0xba, 0x11, 5, 0xb9, 4, 0, 0, 0, 0xbf}, {0xf3, 0x6c}));
  INFO(in.end.console << in.end.text << "reason " << in.end.reason);
  CHECK(in.end.kernel_reached());
  CHECK(exits_of_guest(in) == std::vector<std::uint64_t>{0x7b, 0x7b, 0x80000002, 0x80000002, 0x80000002, 0x80000002});
  using Writes = std::vector<std::pair<std::uint64_t, std::uint64_t>>;
  CHECK(in.end.mmio_writes ==
        Writes{{kDeviceAddress, 'Q'}, {kDeviceAddress + 1, 'E'}, {kDeviceAddress + 2, 'M'}, {kDeviceAddress + 3, 'U'}});

  // rep outsb from the device to the console
  const Run out = run(with_device({0x66, 0xba, 0xf8, 3, 0xb9, 3, 0, 0, 0, 0xbe}, {0xf3, 0x6e}));
  CHECK(out.end.kernel_reached());
  CHECK(exits_of_guest(out) == std::vector<std::uint64_t>{0x80000001, 0x80000001, 0x80000001, 0x7b});
  CHECK(out.end.console.ends_with("***"));
}

TEST_CASE("MMIO by an instruction that the handler does not know ends the guest", "[firmware][boot][events]") {
  const Run made = run(with_device({0xbf}, {0x01, 0x07}));  // add [rdi], eax
  CHECK(made.end.kind == BootEnd::Kind::kTerminated);
  CHECK(made.end.reason == static_cast<unsigned>(Failure::kVcUnsupported));
}
}  // namespace
