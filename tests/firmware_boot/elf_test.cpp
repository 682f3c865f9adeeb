// ELF guests on the real firmware, under SEV-ES: 64-bit code gets boot_params, 32-bit code is entered the PVH way.
#include <catch2/catch.hpp>
#include <cstring>

#include "base/bytes.hpp"
#include "boot_machine.hpp"
#include "firmware/failure.hpp"
#include "firmware/layout.h"
#include "sev/hashes_table.hpp"
#include "tests/firmware/small_elf.hpp"

namespace {
using namespace sevisor;
using namespace sevisor::test;
using firmware::Failure;
using Code = std::vector<std::uint8_t>;

constexpr std::uint64_t kAddress = 0x1000000;

void append(Code& to, std::initializer_list<unsigned> bytes) {
  for (const unsigned byte : bytes) to.push_back(static_cast<std::uint8_t>(byte));
}
void append32(Code& to, std::uint32_t value) {
  for (unsigned i = 0; i < 4; ++i) to.push_back(static_cast<std::uint8_t>(value >> 8 * i));
}

// The same bytes in 32-bit and 64-bit mode.
void append_end(Code& to) {
  append(to, {0xb9, 0x30, 0x01, 0x01, 0xc0, 0xb8});  // mov ecx, GHCB MSR; mov eax, request
  append32(to, 0x100 | kKernelReasonSet << 12 | kKernelReason << 16);
  append(to, {0x31, 0xd2, 0x0f, 0x30, 0xf3, 0x0f, 0x01, 0xd9, 0xeb, 0xfe});  // wrmsr; vmgexit; jmp $
}

// HdrS at RSI + 0x202, and a byte of memory behind the segment's file part is zero.
Code long_guest() {
  Code code;
  append(code, {0x81, 0xbe, 0x02, 0x02, 0, 0});  // cmp dword [rsi+0x202],
  append32(code, 0x53726448);
  append(code, {0x75, 0xfe});        // jne $
  append(code, {0x80, 0x3c, 0x25});  // cmp byte [address+0x2fff], 0
  append32(code, kAddress + 0x2fff);
  append(code, {0x00, 0x75, 0xfe});
  append_end(code);
  return code;
}

// EBX is hvm_start_info, paging is off, CR4 and the direction flag are clear, there is a task.
Code pvh_guest() {
  Code code;
  append(code, {0x81, 0x3b});  // cmp dword [ebx],
  append32(code, 0x336ec578);
  append(code, {0x75, 0xfe});                                            // jne $
  append(code, {0x0f, 0x20, 0xc0, 0x25});                                // mov eax, cr0; and eax,
  append32(code, 0xe005002f);                                            // all writable bits
  append(code, {0x83, 0xf8, 0x01, 0x75, 0xfe});                          // cmp eax, PE; jne $
  append(code, {0x0f, 0x20, 0xe0, 0x85, 0xc0, 0x75, 0xfe});              // mov eax, cr4; test eax, eax; jne $
  append(code, {0x9c, 0x58, 0xa9, 0x00, 0x06, 0x00, 0x00, 0x75, 0xfe});  // pushf; pop eax; test eax, IF|DF; jne $
  append(code, {0x0f, 0x00, 0xc8, 0x66, 0x85, 0xc0, 0x74, 0xfe});        // str eax; test ax, ax; je $
  append_end(code);
  return code;
}

BootEnd boot(std::vector<std::byte> file, bool measured = false) {
  BootMachine machine;
  if (measured) machine.launch_private(FW_HASHES_AREA, sev::make_hashes_table(file, {}, ""));
  machine.set_kernel(std::move(file));
  return machine.run(2'000'000);
}
void check_boots(const BootEnd& end) {
  INFO(end.console << end.text);
  CHECK(end.kernel_reached());
}
void check_ends(const BootEnd& end, Failure failure) {
  INFO(end.console << end.text);
  CHECK(end.kind == BootEnd::Kind::kTerminated);
  CHECK(end.reason == static_cast<unsigned>(failure));
}

TEST_CASE("an ELF-64 guest gets boot_params in 64-bit mode", "[firmware][boot][elf]") {
  const Code code = long_guest();
  const bool measured = GENERATE(false, true);
  check_boots(boot(SmallElf{.code = code}.make(), measured));
  // Its PVH entry, which turns paging on itself, would not know the C-bit.
  check_boots(boot(SmallElf{.code = code, .pvh_entry = kAddress + 1}.make(), measured));
}

TEST_CASE("an ELF-32 guest is entered the PVH way", "[firmware][boot][elf]") {
  const Code code = pvh_guest();
  const bool measured = GENERATE(false, true);
  check_boots(boot(SmallElf{.wide = false, .code = code, .pvh_entry = std::uint32_t{kAddress}}.make(), measured));
}

TEST_CASE("an ELF guest that cannot be loaded ends with its reason", "[firmware][boot][elf]") {
  const Code code = long_guest();
  check_ends(boot(SmallElf{.wide = false, .code = code}.make()), Failure::kElfEntry);
  check_ends(boot(SmallElf{.address = 0x8000000, .code = code}.make()), Failure::kNoMemory);  // there are 64 MiB
  check_ends(boot(SmallElf{.code = code, .memory_size = 0x8000000}.make()), Failure::kNoMemory);
  check_ends(boot(SmallElf{.address = 0x9000, .code = code}.make()), Failure::kElf);
  auto file = SmallElf{.code = code}.make();
  file.resize(1100);
  store<std::uint16_t>(file.data() + 18, 183);
  check_ends(boot(file), Failure::kElfMachine);
}

TEST_CASE("a byte of difference in a measured ELF guest ends it", "[firmware][boot][elf]") {
  const Code code = long_guest();
  const auto measured = SmallElf{.code = code}.make();
  auto given = measured;
  given.back() ^= std::byte{1};
  BootMachine machine;
  machine.launch_private(FW_HASHES_AREA, sev::make_hashes_table(measured, {}, ""));
  machine.set_kernel(given);
  check_ends(machine.run(), Failure::kKernelHash);
}

// Writes and reads back at 6 GiB - 8 and at 5 GiB, of 4 to 6 GiB; the page tables are the firmware's.
Code high_guest() {
  Code code;
  for (const std::uint64_t address : {0x17ffffff8ULL, 0x140000000ULL}) {
    append(code, {0x48, 0xbf});  // mov rdi, address
    append32(code, static_cast<std::uint32_t>(address));
    append32(code, static_cast<std::uint32_t>(address >> 32));
    append(code, {0x48, 0x89, 0x3f, 0x48, 0x3b, 0x3f, 0x75, 0xfe});  // mov [rdi], rdi; cmp rdi, [rdi]; jne $
  }
  append_end(code);
  return code;
}

TEST_CASE("memory above 4 GiB is mapped, in pages of 1 GiB or 2 MiB", "[firmware][boot][elf]") {
  const bool huge = GENERATE(true, false);
  Lies lies{.high_memory = std::uint64_t{2} << 30};
  lies.cpuid = [huge](std::uint32_t leaf, std::uint32_t, ghcb::CpuidValues& values) {
    if (leaf == 0x80000001) values.edx = huge ? 1U << 26 : 0;
  };
  const Code code = high_guest();
  BootMachine machine(std::move(lies));
  machine.set_kernel(SmallElf{.code = code}.make());
  check_boots(machine.run(2'000'000));
}
}  // namespace
