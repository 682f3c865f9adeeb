// How much the firmware costs from reset to the kernel's first instruction. The kernel is tiny and nothing is hashed,
// so this is without copying and hashing what is booted. docs/performance.md has the figures.
#include <catch2/catch.hpp>
#include <iostream>

#include "boot_machine.hpp"

namespace {
using namespace sevisor::test;

constexpr std::uint64_t kMaxInstructions = 300'000;
constexpr std::uint64_t kMaxVmgexits = 200;
constexpr std::uint64_t kMaxInstructionsPerVcpu = 20'000;
constexpr std::uint64_t kMaxVmgexitsPerVcpu = 20;

BootEnd boot(unsigned vcpus) {
  const BootEnd end = BootMachine({}, vcpus).run();
  INFO(end.console << end.text);
  REQUIRE(end.kernel_reached());
  std::cout << vcpus << " vCPUs: " << end.instructions << " instructions, " << end.vmgexits << " VMGEXITs\n";
  return end;
}

TEST_CASE("the way to the kernel is short", "[firmware][boot][count]") {
  const BootEnd one = boot(1);
  CHECK(one.instructions < kMaxInstructions);
  CHECK(one.vmgexits < kMaxVmgexits);
  for (const unsigned vcpus : {2U, 4U, 16U, 64U}) {
    const BootEnd more = boot(vcpus);
    CHECK(more.instructions - one.instructions < (vcpus - 1) * kMaxInstructionsPerVcpu);
    CHECK(more.vmgexits - one.vmgexits < (vcpus - 1) * kMaxVmgexitsPerVcpu);
  }
}
}  // namespace
