// Each NAE event raised, each automatic exit taken, each rule of the GHCB broken, by guest programs on the emulated
// host. What is expected is what Linux's KVM does: arch/x86/kvm/svm/sev.c, svm.c.
#include <catch2/catch.hpp>
#include <cerrno>
#include <set>

#include "base/bytes.hpp"
#include "kvm/abi.hpp"
#include "layout.h"
#include "machine.hpp"
#include "vmm/trace/guest_checker.hpp"

using namespace sevisor;
using namespace sevisor::nae;

namespace {

struct Case {
  const char* name;
  Program program;
  Setting setting = {};
};

void passes(const Case& c) {
  Machine machine(c.program, c.setting);
  const End end = machine.run();
  INFO(c.name << ": " << end.text());
  CHECK(end.passed());
}

// Host memory is what the guest's shared pages are; the registers of leaf 0x8000001f and 0.
std::vector<std::uint64_t> cpuid_parameters(const kvm::CpuidTable& table) {
  std::vector<std::uint64_t> values;
  for (const std::uint32_t leaf : {0x8000001fU, 0U}) {
    for (const auto& entry : table) {
      if (entry.function == leaf) values.insert(values.end(), {entry.eax, entry.ebx, entry.ecx, entry.edx});
    }
  }
  return values;
}

End ends(Program program, const Setting& setting = {}) {
  Machine machine(program, setting);
  return machine.run();
}

const Setting kVersion2{.init_api = InitApi::kInit2};

std::vector<Case> event_cases() {
  return {
      {"CPUID leaf 0xd by XCR0", Program::kCpuidXsave},
      {"DR7", Program::kDr7},
      {"RDTSC and RDTSCP", Program::kTimeStamp},
      {"RDPMC", Program::kRdpmc},
      {"INVD", Program::kInvd},
      {"WBINVD", Program::kWbinvd},
      {"MSRs", Program::kMsr},
      {"an MSR that is not there", Program::kMsrUnknown},
      {"VMMCALL", Program::kVmmcall},
      {"VMMCALL from CPL 3", Program::kVmmcallUser},
      {"MONITOR(X), MWAIT(X)", Program::kMonitor},
      {"#AC", Program::kAlignmentCheck},
      {"#DB", Program::kSingleStep},
      {"NMI and its completion", Program::kNmi},
      {"MMIO of the local APIC", Program::kMmioApic},
      {"AP reset hold through the GHCB", Program::kApHoldPage, {.vcpus = 2}},
      {"AP reset hold through the MSR", Program::kApHoldMsr, {.vcpus = 2}},
      {"AP jump table", Program::kJumpTable},
      {"features", Program::kFeatures},
      {"HLT", Program::kHlt},
      {"PAUSE", Program::kPause},
      {"CR and EFER write traps", Program::kWriteTraps},
      {"RDTSCP through the GHCB", Program::kRdtscpRequest},
  };
}

}  // namespace

TEST_CASE("a guest raises each event and finds what it must") {
  for (const Case& c : event_cases()) passes(c);
}

// The newest kernel's rules are tested below; what is different in these is tested in tests/ghcb_hypervisor.
TEST_CASE("older kernels answer each event that they know as the newest does") {
  for (const std::string_view kernel : {"6.1", "6.12"}) {
    const auto host =
        emulator::make_emulated_host({.slice = 10'000, .personality = emulator::find_personality(kernel)});
    for (Case c : event_cases()) {
      if (kernel == "6.1" && (c.program == Program::kApHoldMsr || c.program == Program::kFeatures)) continue;
      c.setting.host = host.get();
      INFO(kernel);
      passes(c);
    }
  }
}

TEST_CASE("a shutdown is EINVAL on Linux 6.1") {
  const auto host = emulator::make_emulated_host({.slice = 10'000, .personality = emulator::find_personality("6.1")});
  CHECK(ends(Program::kShutdown, {.host = host.get()}).error_number == EINVAL);
}

TEST_CASE("CPUID answers from the vCPU's table") {
  Machine machine(Program::kCpuid);
  machine.set_parameters(cpuid_parameters(machine.cpuid()));
  const End end = machine.run();
  INFO(end.text());
  CHECK(end.passed());
}

TEST_CASE("port accesses of all sizes reach user space as KVM_EXIT_IO") {
  const End end = ends(Program::kPorts);
  INFO(end.text());
  CHECK(end.passed());
  CHECK(end.exits == 6);
  CHECK(end.port_bytes == std::vector<std::uint8_t>{0x11, 0x11, 0x00, 0x11, 0x00, 0xff, 0xee});
}

TEST_CASE("string port accesses arrive whole and in order") {
  const End end = ends(Program::kPortStrings);
  INFO(end.text());
  CHECK(end.passed());
  CHECK(end.port_bytes == std::vector<std::uint8_t>{0xa0, 0xa1, 0xa2, 0xa3, 0xa4, 0xa5, 0xa6, 0xa7, 0xa8});
}

TEST_CASE("MMIO of all sizes reaches user space as KVM_EXIT_MMIO, more than eight bytes in pieces") {
  const End end = ends(Program::kMmio);
  INFO(end.text());
  CHECK(end.passed());
  CHECK(end.exits == 9 + 3 + 3);
}

TEST_CASE("each rule of the GHCB that is broken is refused as KVM refuses it") {
  const Case cases[] = {
      {"usage", Program::kUsage},
      {"exit code and infos not valid", Program::kMissingAlways},
      {"fields missing", Program::kMissingFields},
      {"unknown events", Program::kUnknownEvents},
      {"scratch areas", Program::kScratchRules},
      {"a scratch area outside the GHCB", Program::kScratchOutside},
      {"a scratch area outside the GHCB in version 2", Program::kScratchOutsideVersion2, kVersion2},
      {"MMIO length", Program::kMmioLength},
      {"MMIO length in version 2", Program::kMmioLengthVersion2, kVersion2},
      {"AP jump table operation", Program::kJumpTableOperation},
      {"a private GHCB", Program::kPrivateGhcb},
      {"a GHCB outside memory", Program::kGhcbNowhere},
      {"a GHCB that is not aligned", Program::kGhcbUnaligned},
      {"unknown requests of the MSR protocol", Program::kMsrUnknownRequest},
      {"negotiation in version 1", Program::kNegotiation, {.parameters = {1}}},
      {"negotiation in version 2", Program::kNegotiation, {.init_api = InitApi::kInit2, .parameters = {2}}},
      {"the answer's bitmap", Program::kAnswerBitmap},
      {"VMGEXIT from CPL 3", Program::kUserVmgexit},
      {"MMIO through a private mapping", Program::kPrivateMmio},
  };
  for (const Case& c : cases) passes(c);
}

TEST_CASE("termination is told with its reason") {
  for (const std::uint64_t request : {0x100ULL, 0x10100ULL, 0x20100ULL, 0x421100ULL, 0xfff100ULL}) {
    const End end = ends(Program::kTerminateMsr, {.parameters = {request}});
    INFO(end.text());
    CHECK(end.reason == KVM_EXIT_SYSTEM_EVENT);
    CHECK(end.data == request);
  }
  // Through the GHCB: its address, and the reason still stands there.
  Machine machine(Program::kTerminatePage, {.parameters = {0x421}});
  const End end = machine.run();
  CHECK(end.reason == KVM_EXIT_SYSTEM_EVENT);
  CHECK(end.data == NAE_GHCB);
  CHECK(load<std::uint64_t>(machine.ram().data() + NAE_GHCB + 0x398) == 0x421);
  // Requests of the MSR protocol that are SEV-SNP's end the guest too.
  for (const std::uint64_t request : {0x2010ULL, 0x200012ULL, 0x14ULL}) {
    const End snp = ends(Program::kMsrSnpRequest, {.parameters = {request}});
    CHECK(snp.reason == KVM_EXIT_SYSTEM_EVENT);
    CHECK(snp.data == request);
  }
}

TEST_CASE("requests that end the run") {
  CHECK(ends(Program::kUnsupported).error_number == EINVAL);
  CHECK(ends(Program::kScratchNoMemory).error_number == EFAULT);
  CHECK(ends(Program::kStringTooLong, {.parameters = {0x80000000}}).error_number == EINVAL);
  CHECK(ends(Program::kStringTooLong, {.parameters = {~std::uint64_t{0}}}).error_number == EINVAL);
  const End rdtsc = ends(Program::kRdtscRequest);
  CHECK(rdtsc.reason == KVM_EXIT_INTERNAL_ERROR);
  CHECK(rdtsc.data == 0x6e);
}

TEST_CASE("shutdown and a nested page fault that nothing resolves") {
  CHECK(ends(Program::kShutdown).reason == KVM_EXIT_SHUTDOWN);
  const End fault = ends(Program::kReadOnlyPage);
  INFO(fault.text());
  CHECK(fault.result.stage == 1);
  CHECK(fault.reason == KVM_EXIT_INTERNAL_ERROR);
  CHECK(fault.data == 0x400);
}

TEST_CASE("the checker finds what is unclean, by rule") {
  vmm::GuestChecker checker;
  (void)ends(Program::kUnclean, {.observer = &checker, .watch_memory = true});
  std::set<std::string> rules;
  for (const vmm::Finding& f : checker.findings()) {
    INFO(f.rule << " " << f.detail << " at " << f.rip);
    rules.insert(f.rule);
    CHECK(f.rip >= NAE_IMAGE);
    CHECK(f.rip < NAE_STACK_TOP);
    CHECK(f.count >= 1);
  }
  CHECK(rules == std::set<std::string>{"register-exposed", "reply-unchecked", "reply-unmarked", "mmio-private",
                                       "c-bit-mismatch", "ghcb-nested"});
  for (const vmm::Finding& f : checker.findings()) {
    if (f.rule == "mmio-private") CHECK(f.page == NAE_MMIO);
    if (f.rule == "c-bit-mismatch") CHECK(f.page == NAE_SCRATCH);
    if (f.rule == "ghcb-nested") CHECK(f.page == NAE_GHCB);
  }
}

TEST_CASE("the checker finds nothing in what a careful handler does") {
  for (const Program program : {Program::kDr7, Program::kWbinvd, Program::kPorts, Program::kPortStrings, Program::kMsr,
                                Program::kMsrUnknown, Program::kVmmcall, Program::kMonitor}) {
    vmm::GuestChecker checker;
    const End end = ends(program, {.observer = &checker, .watch_memory = true});
    INFO(static_cast<int>(program) << ": " << end.text());
    CHECK(end.passed());
    for (const vmm::Finding& f : checker.findings()) {
      // The programs also ask by hand, which shows what it shows.
      INFO(f.rule << " " << f.detail << " at " << f.rip);
      CHECK(program == Program::kMonitor);
    }
  }
}

TEST_CASE("write traps tell the host what CR4 is") {
  Machine machine(Program::kWriteTraps);
  CHECK(machine.run().passed());
  CHECK((machine.vcpu(0).sregs().cr4 & 4) != 0);  // TSD, which the VMSA did not have
}
