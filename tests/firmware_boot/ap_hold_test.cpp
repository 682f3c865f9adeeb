// The application processors' hold: a GHCB for each, wake-ups that are no SIPI, and the way to the operating system.
#include <algorithm>
#include <array>
#include <catch2/catch.hpp>
#include <map>
#include <set>

#include "base/bytes.hpp"
#include "boot_machine.hpp"
#include "firmware/layout.h"
#include "ghcb/exit_code.hpp"

namespace {
using namespace sevisor;
using namespace sevisor::test;

constexpr std::uint64_t kLimit = 400'000'000;

std::vector<std::uint64_t> codes_of(const BootEnd& end, unsigned vcpu) {
  std::vector<std::uint64_t> codes;
  for (const ApRequest& request : end.ap_requests) {
    if (request.vcpu == vcpu) codes.push_back(request.exit_code);
  }
  return codes;
}

// Whether the kernel got the page as reserved: boot_params' count of ranges at 0x1e8, the ranges from 0x2d0 on.
bool reserved(BootMachine& machine, std::uint64_t page) {
  constexpr std::uint32_t kReserved = 2;
  const auto params = machine.private_bytes(FW_BOOT_PARAMS, kPageSize);
  const auto count = load<std::uint8_t>(&params[0x1e8]);
  for (std::size_t i = 0; i < count; ++i) {
    const std::byte* entry = &params[0x2d0 + i * 20];
    const auto begin = load<std::uint64_t>(entry);
    const auto size = load<std::uint64_t>(entry + 8);
    if (page >= begin && page - begin < size) return load<std::uint32_t>(entry + 16) == kReserved;
  }
  return false;
}

TEST_CASE("each application processor holds by a GHCB of its own, which stays its own", "[firmware][boot][hold]") {
  const unsigned vcpus = GENERATE(2U, 64U, 65U, 66U, 255U);
  CAPTURE(vcpus);
  BootMachine machine({}, vcpus);
  const BootEnd end = machine.run(kLimit);
  INFO(end.console << end.text);
  REQUIRE(end.kernel_reached());
  CHECK(end.console.find("application processors started") == std::string::npos);
  std::map<unsigned, std::set<std::uint64_t>> pages;
  std::set<std::uint64_t> all;
  for (const ApRequest& request : end.ap_requests) {
    pages[request.vcpu].insert(request.page);
    all.insert(request.page);
  }
  CHECK(pages.size() == vcpus - 1);
  CHECK(all.size() == vcpus - 1);
  CHECK(std::ranges::all_of(pages, [](const auto& of) { return of.second.size() == 1; }));
  CHECK(std::ranges::all_of(all, [&](std::uint64_t page) { return reserved(machine, page); }));
  for (unsigned i = 1; i < vcpus; ++i) {
    CHECK(codes_of(end, i) == std::vector<std::uint64_t>{ghcb::kExitMsr, ghcb::kExitApResetHold});
  }
}

TEST_CASE("one processor needs no memory for others", "[firmware][boot][hold]") {
  BootMachine machine({}, 1);
  REQUIRE(machine.run(kLimit).kernel_reached());
  constexpr std::uint64_t kLastOfRam = (64 << 20) - (4 << 20);
  CHECK_FALSE(reserved(machine, kLastOfRam));
}

TEST_CASE("a wake-up for no reason or by an NMI goes back to the hold", "[firmware][boot][hold]") {
  constexpr auto kHold = std::uint64_t{ghcb::kExitApResetHold};
  constexpr auto kMsr = std::uint64_t{ghcb::kExitMsr};
  constexpr auto kEnd = std::uint64_t{ghcb::kExitNmiComplete};
  std::vector<Wake> wakes;
  std::vector<std::uint64_t> expected;
  SECTION("no reason") {
    wakes = {Wake::kNoReason, Wake::kNoReason};
    expected = {kMsr, kHold, kHold, kHold};
  }
  // An SEV-ES guest says when an NMI is over; the hypervisor sends no other one before.
  SECTION("NMI") {
    wakes = {Wake::kNmi, Wake::kNoReason, Wake::kNmi};
    expected = {kMsr, kHold, kEnd, kHold, kHold, kEnd, kHold};
  }
  SECTION("a SIPI with nowhere to go") {
    wakes = {Wake::kSipi, Wake::kNmi};
    expected = {kMsr, kHold, kHold, kEnd, kHold};
  }
  const auto wake = [&wakes](unsigned, unsigned count) {
    return count <= wakes.size() ? wakes[count - 1] : Wake::kNothing;
  };
  const BootEnd end = BootMachine({.hold = wake}, 3).run(kLimit);
  INFO(end.console << end.text);
  CHECK(end.kernel_reached());
  CHECK(codes_of(end, 1) == expected);
  CHECK(codes_of(end, 2) == expected);
}

// Real-mode code at 0x0c00:0x0010, as the operating system's trampoline finds it: it ends the guest if all is as after
// INIT.
TEST_CASE("a SIPI takes a processor to the jump table's address in real mode, as after INIT",
          "[firmware][boot][hold]") {
  constexpr std::uint64_t kCode = 0xc010;
  constexpr unsigned kReason = 0x43;
  std::vector<std::uint8_t> code;
  const auto append = [&code](std::initializer_list<unsigned> bytes) {
    for (const unsigned byte : bytes) code.push_back(static_cast<std::uint8_t>(byte));
  };
  append({0x66, 0x09, 0xd8, 0x66, 0x09, 0xc8, 0x66, 0x09, 0xd0, 0x66, 0x09, 0xf0});  // or eax, ebx, ecx, edx, esi
  append({0x66, 0x09, 0xf8, 0x66, 0x09, 0xe8, 0x66, 0x09, 0xe0, 0x75, 0xfe});        // edi, ebp, esp; jnz $
  append({0x0f, 0x20, 0xc0, 0x66, 0xa9, 0x01, 0x00, 0x00, 0x80, 0x75, 0xfe});        // mov eax, cr0; PG, PE; jnz $
  append({0x0f, 0x20, 0xe0, 0x66, 0xa9, 0x20, 0x00, 0x00, 0x00, 0x75, 0xfe});        // mov eax, cr4; PAE; jnz $
  append({0x0f, 0x20, 0xd8, 0x66, 0x85, 0xc0, 0x75, 0xfe});                          // mov eax, cr3; jnz $
  append({0x66, 0xb9, 0x80, 0x00, 0x00, 0xc0, 0x0f, 0x32, 0x66, 0xa9, 0x00, 0x05, 0x00, 0x00, 0x75, 0xfe});  // EFER
  append({0x8c, 0xd8, 0x8c, 0xc3, 0x09, 0xd8, 0x8c, 0xe3, 0x09, 0xd8, 0x8c, 0xeb, 0x09, 0xd8});  // ds, es, fs, gs
  append({0x8c, 0xd3, 0x09, 0xd8, 0x75, 0xfe});                                                  // ss; jnz $
  append({0x8c, 0xc8, 0x3d, 0x00, 0x0c, 0x75, 0xfe});                                            // cs == 0x0c00
  append({0x9c, 0x58, 0xa9, 0x00, 0x06, 0x75, 0xfe});                                            // flags: IF, DF
  append({0x66, 0xb9, 0x30, 0x01, 0x01, 0xc0});                                                  // mov ecx, GHCB MSR
  append({0x66, 0xb8, 0x00, 0x01 | kKernelReasonSet << 4, kReason, 0x00});     // mov eax, termination request
  append({0x66, 0x31, 0xd2, 0x0f, 0x30, 0xf3, 0x0f, 0x01, 0xd9, 0xeb, 0xfe});  // wrmsr; vmgexit; jmp $

  BootMachine* at = nullptr;
  BootMachine machine({.hold =
                           [&at, &code](unsigned, unsigned count) {
                             // The second time: an NMI shall not keep it from the way either.
                             if (count == 1) return Wake::kNmi;
                             constexpr std::array<std::uint8_t, 4> kAddress = {0x10, 0x00, 0x00, 0x0c};  // IP, CS
                             at->write_private(kCode, std::as_bytes(std::span(code)));
                             at->write_private(FW_AP_JUMP_TABLE, std::as_bytes(std::span(kAddress)));
                             return Wake::kSipi;
                           }},
                      2);
  at = &machine;
  const BootEnd end = machine.run(kLimit);
  INFO(end.console << end.text);
  CHECK(end.kind == BootEnd::Kind::kTerminated);
  CHECK(end.reason_set == kKernelReasonSet);
  CHECK(end.reason == kReason);
}
}  // namespace
