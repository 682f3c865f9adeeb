// Application processors: how many the firmware starts, and by which mode of the local APIC.
#include <catch2/catch.hpp>

#include "boot_machine.hpp"
#include "devices/fw_cfg.hpp"

namespace {
using namespace sevisor;
using namespace sevisor::test;

constexpr std::uint64_t kX2ApicBase = 0xfee00d00;

BootEnd boot(Lies lies, unsigned vcpus) {
  const BootEnd end = BootMachine(std::move(lies), vcpus).run(400'000'000);
  INFO(end.console << end.text);
  CHECK(end.kernel_reached());
  // It says so when one is missing.
  CHECK(end.console.find("application processors started") == std::string::npos);
  return end;
}

TEST_CASE("APICs in x2APIC mode are told by their MSR", "[firmware][boot][processors]") {
  CHECK(boot({.apic_base = kX2ApicBase}, 4).x2_commands == 2);  // INIT, SIPI
}

TEST_CASE("8-bit APIC IDs will do for 255 processors", "[firmware][boot][processors]") {
  CHECK(boot({}, 255).x2_commands == 0);
}

TEST_CASE("more processors than 8-bit APIC IDs are started in x2APIC mode", "[firmware][boot][processors]") {
  CHECK(boot({}, 300).x2_commands == 2);
}

TEST_CASE("without x2APIC the old mode has to do", "[firmware][boot][processors]") {
  Lies lies;
  lies.cpuid = [](std::uint32_t leaf, std::uint32_t, ghcb::CpuidValues& values) {
    if (leaf == 1) values.ecx &= ~(1U << 21);
  };
  CHECK(boot(lies, 300).x2_commands == 0);
}

// The address is the hypervisor's word. Elsewhere the writes might go to the guest's own memory.
TEST_CASE("an APIC that is off or somewhere else starts nobody", "[firmware][boot][processors]") {
  const std::uint64_t base = GENERATE(0x00100900, 0xfee00100, 0);
  const BootEnd end = BootMachine({.apic_base = base}, 2).run();
  INFO(end.console << end.text);
  CHECK(end.kernel_reached());
  CHECK(end.console.find("0 of 1 application processors started") != std::string::npos);
}
}  // namespace
