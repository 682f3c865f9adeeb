// The measured boot of the real firmware: the right files boot, a byte of difference in any of them ends the guest.
#include <algorithm>
#include <catch2/catch.hpp>
#include <cpuid.h>
#include <iostream>

#include "base/bytes.hpp"
#include "boot_machine.hpp"
#include "firmware/failure.hpp"
#include "firmware/layout.h"
#include "firmware/secret_area.hpp"
#include "sev/guid.hpp"
#include "sev/hashes_table.hpp"

namespace {
using namespace sevisor;
using namespace sevisor::test;
using firmware::Failure;

constexpr std::size_t kSetupDataAt = FW_BOOT_PARAMS + 0x250;
constexpr const char* kCommandLine = "console=ttyS0 quiet";

struct Files {
  std::vector<std::byte> kernel = tiny_kernel(100'000);
  std::vector<std::byte> initrd = std::vector<std::byte>(70'001, std::byte{0x42});
  std::string command_line = kCommandLine;
};

sev::HashesTable table_of(const Files& files) {
  return sev::make_hashes_table(files.kernel, files.initrd, files.command_line);
}
void give(BootMachine& machine, const Files& files) {
  machine.set_kernel(files.kernel);
  machine.set_initrd(files.initrd);
  machine.set_command_line(files.command_line);
}

void check_ends(const BootEnd& end, Failure failure) {
  INFO(end.console << end.text);
  CHECK(end.kind == BootEnd::Kind::kTerminated);
  CHECK(end.reason_set == 1);
  CHECK(end.reason == static_cast<unsigned>(failure));
  CHECK(end.console.find(firmware::failure_text(failure)) != std::string::npos);
}
void check_boots(const BootEnd& end) {
  INFO(end.console << end.text);
  CHECK(end.kernel_reached());
}

std::vector<std::byte> secret_table() {
  constexpr sev::Guid kGuid = sev::Guid::parse("1e74f542-71dd-4d66-963e-ef4287ff173b");
  std::vector<std::byte> table(64, std::byte{0x5e});
  std::memcpy(table.data(), &kGuid, sizeof kGuid);
  store<std::uint32_t>(table.data() + 16, 64);
  store<std::uint32_t>(table.data() + 36, 44);
  return table;
}

TEST_CASE("a kernel boots without hashes, unmeasured", "[firmware][boot]") {
  BootMachine machine;
  give(machine, {});
  const BootEnd end = machine.run();
  check_boots(end);
  CHECK(end.console.find("what boots is not measured") != std::string::npos);
}

TEST_CASE("files with the measured hashes boot", "[firmware][boot]") {
  Files files;
  SECTION("all three") {}
  SECTION("no initrd, no command line") {
    files.initrd.clear();
    files.command_line.clear();
  }
  BootMachine machine;
  give(machine, files);
  machine.launch_private(FW_HASHES_AREA, table_of(files));
  const BootEnd end = machine.run();
  check_boots(end);
  CHECK(end.console.find("must have the measured hashes") != std::string::npos);
}

TEST_CASE("a file other than the measured one ends the guest", "[firmware][boot]") {
  const Files measured;
  Files given;
  Failure failure = Failure::kKernelHash;
  SECTION("first byte of the setup part") { given.kernel.front() ^= std::byte{1}; }
  SECTION("a setup header that no parser would take") { given.kernel[0x202] ^= std::byte{1}; }
  SECTION("last byte of the kernel") { given.kernel.back() ^= std::byte{1}; }
  SECTION("kernel shorter") { given.kernel.pop_back(); }
  SECTION("kernel longer") { given.kernel.push_back(std::byte{0}); }
  SECTION("last byte of the initrd") {
    given.initrd.back() ^= std::byte{1};
    failure = Failure::kInitrdHash;
  }
  SECTION("no initrd") {
    given.initrd.clear();
    failure = Failure::kInitrdHash;
  }
  SECTION("command line") {
    given.command_line += " init=/bin/sh";
    failure = Failure::kCommandLineHash;
  }
  SECTION("no command line") {
    given.command_line.clear();
    failure = Failure::kCommandLineHash;
  }
  BootMachine machine;
  give(machine, given);
  machine.launch_private(FW_HASHES_AREA, table_of(measured));
  check_ends(machine.run(), failure);
}

TEST_CASE("what the DMA changes on its way is found", "[firmware][boot]") {
  const Files files;
  BootMachine machine({.dma = [](std::span<std::byte> bytes) {
    if (bytes.size() > 50'000) bytes[40'000] ^= std::byte{0x80};
  }});
  give(machine, files);
  machine.launch_private(FW_HASHES_AREA, table_of(files));
  check_ends(machine.run(), Failure::kKernelHash);
}

TEST_CASE("a malformed table of hashes ends the guest", "[firmware][boot]") {
  const Files files;
  sev::HashesTable table = table_of(files);
  table[20] ^= std::byte{1};
  BootMachine machine;
  give(machine, files);
  machine.launch_private(FW_HASHES_AREA, table);
  check_ends(machine.run(), Failure::kHashesTable);
}

// What CPUID says of leaves 1 and 7 for the SHA extensions; the emulated processor has what this machine has.
Lies sha_extensions(bool there) {
  return {.cpuid = [there](std::uint32_t leaf, std::uint32_t, ghcb::CpuidValues& values) {
    if (leaf == 1) values.ecx |= 1U << 9 | 1U << 19;  // SSSE3, SSE4.1
    if (leaf == 7) values.ebx = there ? 1U << 29 : 0;
  }};
}

double instructions_per_byte(bool by_sha) {
  Files files;
  files.kernel = tiny_kernel(1 << 20);
  BootMachine machine(sha_extensions(by_sha));
  give(machine, files);
  machine.launch_private(FW_HASHES_AREA, table_of(files));
  const BootEnd measured = machine.run(400'000'000);
  check_boots(measured);
  BootMachine plain_machine(sha_extensions(by_sha));
  give(plain_machine, files);
  const auto hashed = files.kernel.size() + files.initrd.size();
  return double(measured.instructions - plain_machine.run().instructions) / double(hashed);
}

TEST_CASE("the SHA extensions hash when CPUID has them", "[firmware][boot][count]") {
  const double plain = instructions_per_byte(false);
  std::cout << "SHA-256 in general registers: " << plain << " instructions a byte\n";
  CHECK(plain < 60);
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0 || (b & 1U << 29) == 0) {
    WARN("this machine has no SHA extensions");
    return;
  }
  const double by_sha = instructions_per_byte(true);
  std::cout << "SHA-256 by the SHA extensions: " << by_sha << " instructions a byte\n";
  CHECK(by_sha < 4);
}

TEST_CASE("a file other than the measured one ends the guest, by the SHA extensions too", "[firmware][boot]") {
  const Files measured;
  Files given;
  given.kernel.back() ^= std::byte{1};
  BootMachine machine(sha_extensions(true));
  give(machine, given);
  machine.launch_private(FW_HASHES_AREA, table_of(measured));
  const BootEnd end = machine.run();
  // Where the processor has them not, CPUID lied: #UD.
  if (end.reason != static_cast<unsigned>(Failure::kException)) check_ends(end, Failure::kKernelHash);
  CHECK_FALSE(end.kernel_reached());
}

TEST_CASE("the secret goes to a measured kernel", "[firmware][boot]") {
  const Files files;
  BootMachine machine;
  give(machine, files);
  machine.launch_private(FW_HASHES_AREA, table_of(files));
  const auto secret = secret_table();
  machine.launch_private(FW_SECRET_AREA, secret);
  check_boots(machine.run());
  const auto pointer = load<std::uint64_t>(machine.private_bytes(kSetupDataAt, 8).data());
  REQUIRE(pointer == FW_SECRET_PAGE);
  const auto item = machine.private_bytes(pointer, 16 + secret.size());
  CHECK(load<std::uint64_t>(item.data()) == 0);
  CHECK(load<std::uint32_t>(item.data() + 8) == firmware::kSetupDataSecret);
  CHECK(load<std::uint32_t>(item.data() + 12) == secret.size());
  CHECK(std::equal(secret.begin(), secret.end(), item.begin() + 16));
}

TEST_CASE("nobody else gets the secret", "[firmware][boot]") {
  const Files files;
  BootMachine machine;
  give(machine, files);
  SECTION("no hashes") {}
  SECTION("hashes that the hypervisor spoiled after the measurement") {
    sev::HashesTable table = table_of(files);
    std::fill_n(table.begin(), 16, std::byte{0x77});  // a block of the cipher turns to noise
    machine.launch_private(FW_HASHES_AREA, table);
  }
  machine.launch_private(FW_SECRET_AREA, secret_table());
  const BootEnd end = machine.run();
  check_boots(end);
  CHECK(end.console.find("launch secret wiped") != std::string::npos);
  CHECK(load<std::uint64_t>(machine.private_bytes(kSetupDataAt, 8).data()) == 0);
  const auto page = machine.private_bytes(FW_SECRET_PAGE, kPageSize);
  CHECK(std::ranges::all_of(page, [](std::byte byte) { return byte == std::byte{0}; }));
}
}  // namespace
