// The real firmware under a hypervisor that lies: it terminates with the right reason or ignores the lie, within a
// bounded number of instructions.
#include <algorithm>
#include <catch2/catch.hpp>
#include <random>

#include "base/bytes.hpp"
#include "boot_machine.hpp"
#include "firmware/failure.hpp"
#include "firmware/layout.h"
#include "ghcb/event.hpp"
#include "ghcb/exit_code.hpp"
#include "ghcb/msr_protocol.hpp"
#include "ghcb/page.hpp"
#include "sev/hashes_table.hpp"

namespace {
using namespace sevisor;
using namespace sevisor::test;
using devices::FwCfgItem;
using devices::FwCfgKey;
using firmware::Failure;

constexpr std::uint32_t kEncryptionLeaf = 0x8000001f;
constexpr std::uint64_t kMsrCpuidReply = 5;
constexpr std::uint64_t kMsrCpuidRequest = 4;

BootEnd boot(Lies lies, unsigned vcpus = 1) { return BootMachine(std::move(lies), vcpus).run(); }

void check_terminated(const BootEnd& end, unsigned reason_set, unsigned reason) {
  INFO(end.console << end.text);
  CHECK(end.kind == BootEnd::Kind::kTerminated);
  CHECK(end.reason_set == reason_set);
  CHECK(end.reason == reason);
}
void check_ends(const BootEnd& end, Failure failure) { check_terminated(end, 1, static_cast<unsigned>(failure)); }
void check_boots(const BootEnd& end) {
  INFO(end.console << end.text);
  CHECK(end.kernel_reached());
}

// --- CPUID ---

TEST_CASE("wrong CPUID answers before the handler", "[firmware][boot][hostile]") {
  Failure failure = Failure::kCBit;
  Lies lies;
  const auto encryption = [](auto change) {
    return [change](std::uint32_t leaf, std::uint32_t, ghcb::CpuidValues& values) {
      if (leaf == kEncryptionLeaf) change(values);
    };
  };
  const auto c_bit = [&](unsigned bit) {
    return encryption([bit](ghcb::CpuidValues& values) { values.ebx = (values.ebx & ~0x3fU) | bit; });
  };
  SECTION("C-bit 0") { lies.cpuid = c_bit(0); }
  SECTION("C-bit 31") { lies.cpuid = c_bit(31); }
  SECTION("C-bit 52") { lies.cpuid = c_bit(52); }
  SECTION("C-bit 63") { lies.cpuid = c_bit(63); }
  SECTION("no SEV") {
    lies.cpuid = encryption([](ghcb::CpuidValues& values) { values.eax &= ~2U; });
  }
  SECTION("all zero") {
    lies.cpuid = encryption([](ghcb::CpuidValues& values) { values = {}; });
  }
  SECTION("largest leaf too small") {
    lies.cpuid = [](std::uint32_t leaf, std::uint32_t, ghcb::CpuidValues& values) {
      if (leaf == 0x80000000) values.eax = 0x8000001e;
    };
  }
  check_ends(boot(lies), failure);
}

// Page tables that lead nowhere: the processor stops before it has written anything.
TEST_CASE("a wrong C-bit without memory there ends in a shutdown", "[firmware][boot][hostile]") {
  const BootEnd end = boot({.cpuid = [](std::uint32_t leaf, std::uint32_t, ghcb::CpuidValues& values) {
    if (leaf == kEncryptionLeaf) values.ebx = (values.ebx & ~0x3fU) | 47;
  }});
  CHECK(end.kind == BootEnd::Kind::kShutdown);
}

// The processor itself says that SEV-ES is active (SEV_STATUS), which no hypervisor can change.
TEST_CASE("CPUID without SEV-ES is ignored", "[firmware][boot][hostile]") {
  check_boots(boot({.cpuid = [](std::uint32_t leaf, std::uint32_t, ghcb::CpuidValues& values) {
    if (leaf == kEncryptionLeaf) values.eax &= ~8U;
  }}));
}

TEST_CASE("absurd CPUID answers elsewhere are ignored", "[firmware][boot][hostile]") {
  const auto value = GENERATE(0U, 0xffffffffU);
  check_boots(boot({.cpuid = [value](std::uint32_t leaf, std::uint32_t, ghcb::CpuidValues& values) {
    if (leaf == 1 || leaf == 0x80000008) values = {value, value, value, value};
  }}));
}

// --- GHCB MSR protocol ---

TEST_CASE("replies of the GHCB MSR protocol that are none", "[firmware][boot][hostile]") {
  std::function<std::uint64_t(std::uint64_t)> change;
  SECTION("another function") {
    change = [](std::uint64_t reply) { return reply ^ 8; };
  }
  SECTION("reserved bits") {
    change = [](std::uint64_t reply) { return reply | 0x1000; };
  }
  SECTION("another register") {
    change = [](std::uint64_t reply) { return reply ^ 0x40000000; };
  }
  SECTION("the request") {
    change = [](std::uint64_t reply) { return (reply & ~std::uint64_t{0xfff}) | kMsrCpuidRequest; };
  }
  SECTION("zero") {
    change = [](std::uint64_t) { return std::uint64_t{0}; };
  }
  check_ends(boot({.msr_reply =
                       [&](std::uint64_t, std::uint64_t reply) {
                         return (reply & 0xfff) == kMsrCpuidReply ? change(reply) : reply;
                       }}),
             Failure::kMsrReply);
}

TEST_CASE("protocol versions that do not overlap", "[firmware][boot][hostile]") {
  const auto [least, most] = GENERATE(std::pair{3, 5}, std::pair{0xffff, 0xffff}, std::pair{0, 0}, std::pair{2, 1});
  const auto info = std::uint64_t(most) << 48 | std::uint64_t(least) << 32 | std::uint64_t{51} << 24 | 1;
  check_terminated(
      boot({.msr_reply = [info](std::uint64_t request,
                                std::uint64_t reply) { return request == ghcb::msr::kSevInfoRequest ? info : reply; }}),
      ghcb::msr::kReasonSetGhcb, ghcb::msr::kReasonProtocolRange);
}

TEST_CASE("a SEV information reply that is none, or names another C-bit", "[firmware][boot][hostile]") {
  std::uint64_t info = 0;
  Failure failure = Failure::kCBit;
  SECTION("C-bit 47") { info = std::uint64_t{2} << 48 | std::uint64_t{1} << 32 | std::uint64_t{47} << 24 | 1; }
  SECTION("C-bit 51 + 64") { info = std::uint64_t{2} << 48 | std::uint64_t{1} << 32 | std::uint64_t{115} << 24 | 1; }
  SECTION("the request") {
    info = ghcb::msr::kSevInfoRequest;
    failure = Failure::kMsrReply;
  }
  check_ends(
      boot({.msr_reply = [info](std::uint64_t request,
                                std::uint64_t reply) { return request == ghcb::msr::kSevInfoRequest ? info : reply; }}),
      failure);
}

TEST_CASE("version 1 will do", "[firmware][boot][hostile]") {
  const BootEnd end = boot({.max_version = 1});
  check_boots(end);
  CHECK(end.console.find("GHCB protocol 1,") != std::string::npos);
}

// --- Replies in the page ---

TEST_CASE("replies without valid bits", "[firmware][boot][hostile]") {
  const bool status_valid = GENERATE(false, true);  // with the status alone a read has no value
  check_ends(boot({.page_reply =
                       [status_valid](std::uint64_t, std::uint64_t, ghcb::Page& page) {
                         page.valid.clear();
                         if (status_valid) page.valid.set(ghcb::Field::kExitInfo1);
                       }}),
             Failure::kGhcbReply);
}

TEST_CASE("a result code that does not exist", "[firmware][boot][hostile]") {
  const auto result = GENERATE(3U, 0x80000000U, 0xffffffffU);
  check_ends(
      boot({.page_reply = [result](std::uint64_t, std::uint64_t, ghcb::Page& page) { page.exit_info_1 = result; }}),
      Failure::kGhcbReply);
}

TEST_CASE("an exception that the hypervisor may not ask for", "[firmware][boot][hostile]") {
  const auto vector = GENERATE(std::uint8_t{0}, std::uint8_t{14}, std::uint8_t{29}, std::uint8_t{80});
  check_ends(boot({.page_reply =
                       [vector](std::uint64_t, std::uint64_t, ghcb::Page& page) {
                         page.exit_info_1 = ghcb::kResultException;
                         page.exit_info_2 = ghcb::encode({.vector = vector, .type = ghcb::EventType::kException});
                         page.valid.set(ghcb::Field::kExitInfo2);
                       }}),
             Failure::kGhcbReply);
}

TEST_CASE("#GP where nothing may fault ends the guest", "[firmware][boot][hostile]") {
  check_ends(boot({.page_reply =
                       [](std::uint64_t, std::uint64_t, ghcb::Page& page) {
                         page.exit_info_1 = ghcb::kResultException;
                         page.exit_info_2 =
                             ghcb::encode({.vector = ghcb::kVectorGp, .type = ghcb::EventType::kException});
                         page.valid.set(ghcb::Field::kExitInfo2);
                       }}),
             Failure::kException);
}

TEST_CASE("registers that a request did not ask for do not change", "[firmware][boot][hostile]") {
  check_boots(boot({.page_reply = [](std::uint64_t, std::uint64_t code, ghcb::Page& page) {
    if (code == ghcb::kExitCpuid) return;
    page.rbx = page.rcx = page.rdx = page.rsi = page.rdi = page.rsp = page.rip = 0x4141414141414141;
    page.valid.word[0] = page.valid.word[1] = ~std::uint64_t{0};
  }}));
}

// --- String I/O ---

TEST_CASE("string I/O that claims another length is taken as asked", "[firmware][boot][hostile]") {
  const auto count = GENERATE(std::uint64_t{0}, std::uint64_t{0x100000}, ~std::uint64_t{0});
  Lies lies;
  lies.page_reply = [count](std::uint64_t, std::uint64_t code, ghcb::Page& page) {
    if (code != ghcb::kExitIoio || (page.exit_info_2 == 1)) return;
    page.exit_info_2 = count;
    page.rcx = count;
    page.rdi = 0x100000;
    page.scratch = 0x100000;
    page.valid.word[0] = page.valid.word[1] = ~std::uint64_t{0};
  };
  check_boots(boot(lies));
}

// --- Injected #VC ---

TEST_CASE("an injected #VC with a foreign exit code", "[firmware][boot][hostile]") {
  const auto code =
      GENERATE(std::uint32_t{ghcb::kExitCpuid}, std::uint32_t{ghcb::kExitIoio}, std::uint32_t{ghcb::kExitMsr},
               std::uint32_t{0x400}, std::uint32_t{0x41}, std::uint32_t{0});
  const auto when = GENERATE(std::uint64_t{2}, std::uint64_t{9}, std::uint64_t{40});
  bool done = false;
  const BootEnd end = boot({.inject = [&](std::uint64_t vmgexits) {
    if (done || vmgexits < when) return std::uint64_t{0};
    done = true;
    return ghcb::encode(ghcb::Event{
        .vector = ghcb::kVectorVc, .type = ghcb::EventType::kException, .has_error_code = true, .error_code = code});
  }});
  INFO(end.console << end.text);
  CHECK(done);
  if (code == 0 && end.reason == static_cast<unsigned>(Failure::kVcUnsupported)) {
    CHECK(end.unsupported_event == 0U);  // the read of CR0, which this protocol has no event for
  }
  // Refused by the 32-bit stage, by the decoder, or by the rule on nesting. It lands behind a VMGEXIT, never at an
  // instruction that would fit.
  CHECK(end.kind == BootEnd::Kind::kTerminated);
  CHECK(end.reason_set == 1);
  CHECK((end.reason == static_cast<unsigned>(Failure::kEarlyVc) ||
         end.reason == static_cast<unsigned>(Failure::kVcUnsupported) ||
         end.reason == static_cast<unsigned>(Failure::kVcNested) ||
         (code == 0x41 && end.reason == static_cast<unsigned>(Failure::kException))));  // the exit code of #DB
}

TEST_CASE("#VC upon #VC for ever ends", "[firmware][boot][hostile]") {
  const BootEnd end = boot({.inject = [&](std::uint64_t vmgexits) {
    if (vmgexits < 20) return std::uint64_t{0};
    return ghcb::encode(ghcb::Event{.vector = ghcb::kVectorVc,
                                    .type = ghcb::EventType::kException,
                                    .has_error_code = true,
                                    .error_code = std::uint32_t{ghcb::kExitCpuid}});
  }});
  INFO(end.console << end.text);
  CHECK((end.kind == BootEnd::Kind::kTerminated || end.kind == BootEnd::Kind::kShutdown));
  CHECK_FALSE(end.kernel_reached());
}

TEST_CASE("other exceptions are unexpected", "[firmware][boot][hostile]") {
  const auto vector = GENERATE(std::uint8_t{1}, std::uint8_t{6}, std::uint8_t{16});
  bool done = false;
  const BootEnd end = boot({.inject = [&](std::uint64_t vmgexits) {
    if (done || vmgexits < 60) return std::uint64_t{0};
    done = true;
    return ghcb::encode(ghcb::Event{.vector = vector, .type = ghcb::EventType::kException});
  }});
  check_ends(end, Failure::kException);
}

// --- fw_cfg ---

TEST_CASE("fw_cfg that lies about sizes", "[firmware][boot][hostile]") {
  Failure failure = Failure::kNone;
  Lies lies;
  const auto size = [&](FwCfgKey key, std::uint32_t value, Failure expected) {
    lies.fw_cfg = [key, value](devices::FwCfg& fw_cfg) { fw_cfg.add(key, FwCfgItem::u32(value)); };
    failure = expected;
  };
  SECTION("no kernel") { size(FwCfgKey::kKernelSize, 0, Failure::kNoKernel); }
  SECTION("no setup part") { size(FwCfgKey::kSetupSize, 0, Failure::kNoKernel); }
  SECTION("kernel of 4 GiB") { size(FwCfgKey::kKernelSize, 0xffffffff, Failure::kNoMemory); }
  SECTION("setup part of 4 GiB") { size(FwCfgKey::kSetupSize, 0xffffffff, Failure::kNoMemory); }
  SECTION("kernel longer than it is") { size(FwCfgKey::kKernelSize, 0x900000, Failure::kKernelHeader); }
  SECTION("setup part of one byte") { size(FwCfgKey::kSetupSize, 1, Failure::kNotBzImage); }
  SECTION("initrd of 4 GiB") { size(FwCfgKey::kInitrdSize, 0xffffffff, Failure::kInitrd); }
  SECTION("command line of 4 GiB") { size(FwCfgKey::kCommandLineSize, 0xffffffff, Failure::kCommandLine); }
  SECTION("command line longer than the kernel's limit") {
    size(FwCfgKey::kCommandLineSize, 2049, Failure::kCommandLine);
  }
  const auto file = [&](std::string name, std::vector<std::byte> bytes, Failure expected) {
    lies.fw_cfg = [name, bytes](devices::FwCfg& fw_cfg) { fw_cfg.add_file(name, FwCfgItem(bytes)); };
    failure = expected;
  };
  SECTION("memory map too long") { file("etc/e820", std::vector<std::byte>(20 * 129), Failure::kMemoryMap); }
  SECTION("memory map cut") { file("etc/e820", std::vector<std::byte>(19), Failure::kMemoryMap); }
  SECTION("empty memory map") { file("etc/e820", {}, Failure::kMemoryMap); }
  SECTION("loader script cut") { file("etc/table-loader", std::vector<std::byte>(127), Failure::kAcpiTables); }
  SECTION("loader script too long") { file("etc/table-loader", std::vector<std::byte>(65537), Failure::kAcpiTables); }
  SECTION("empty ACPI tables") { file("etc/acpi/tables", {}, Failure::kAcpiTables); }
  SECTION("ACPI tables of 5 MiB") { file("etc/acpi/tables", std::vector<std::byte>(5 << 20), Failure::kAcpiTables); }
  check_ends(boot(lies), failure);
}

TEST_CASE("a directory with more files than can be", "[firmware][boot][hostile]") {
  // Its count is the first thing that DMA or the port delivers of it; 0xff everywhere also spoils the rest.
  const BootEnd end = boot({.dma = [](std::span<std::byte> bytes) { std::ranges::fill(bytes, std::byte{0xff}); }});
  INFO(end.console << end.text);
  CHECK(end.kind == BootEnd::Kind::kTerminated);
  CHECK(end.reason_set == 1);
  CHECK_FALSE(end.kernel_reached());
}

TEST_CASE("no fw_cfg device", "[firmware][boot][hostile]") {
  check_ends(boot({.page_reply =
                       [](std::uint64_t, std::uint64_t code, ghcb::Page& page) {
                         if (code != ghcb::kExitIoio) return;
                         std::ranges::fill(page.shared_buffer, std::uint8_t{0xff});
                         if (page.valid.has(ghcb::Field::kRax)) page.rax |= 0xff;
                       }}),
             Failure::kNoFwCfg);
}

// --- Application processors ---

TEST_CASE("an application processor that is woken without a SIPI goes back to its hold", "[firmware][boot][hostile]") {
  check_boots(boot({.hold = [](unsigned, unsigned) { return Wake::kNoReason; }}, 2));
}

TEST_CASE("a hold that is refused ends the guest", "[firmware][boot][hostile]") {
  check_ends(boot({.hold = [](unsigned, unsigned) { return Wake::kRefusal; }}, 2), Failure::kApHold);
}

TEST_CASE("more processors than there are", "[firmware][boot][hostile]") {
  const BootEnd end =
      boot({.fw_cfg = [](devices::FwCfg& fw_cfg) { fw_cfg.add(FwCfgKey::kCpuCount, FwCfgItem::u16(0xffff)); }});
  check_boots(end);
  CHECK(end.console.find("0 of 65534 application processors started") != std::string::npos);
}

// --- Noise ---

TEST_CASE("noise in replies never hangs the firmware nor shuts it down", "[firmware][boot][hostile]") {
  const auto seed = GENERATE(range(0U, 60U));
  std::mt19937_64 random(seed);
  const std::uint64_t from = random() % 150;
  Lies lies;
  const auto spoil = [&random](std::span<std::byte> bytes) {
    for (unsigned i = 0; i < 8; ++i) bytes[random() % bytes.size()] ^= static_cast<std::byte>(1U << random() % 8);
  };
  switch (seed % 4) {
    case 0:
      lies.page_reply = [&](std::uint64_t number, std::uint64_t, ghcb::Page& page) {
        if (number >= from) spoil(std::as_writable_bytes(std::span(&page, 1)));
      };
      break;
    case 1:
      lies.page_reply = [&](std::uint64_t number, std::uint64_t, ghcb::Page& page) {
        if (number == from) {
          for (auto& byte : std::as_writable_bytes(std::span(&page, 1))) byte = static_cast<std::byte>(random());
        }
      };
      break;
    case 2:
      lies.dma = [&](std::span<std::byte> bytes) { spoil(bytes); };
      break;
    default:
      lies.msr_reply = [&](std::uint64_t, std::uint64_t reply) { return reply ^ std::uint64_t{1} << random() % 64; };
      break;
  }
  // The kernel is measured: what would run if noise came into it says nothing about the firmware.
  const auto kernel = tiny_kernel(10'000);
  BootMachine machine(lies);
  machine.set_kernel(kernel);
  machine.launch_private(FW_HASHES_AREA, sev::make_hashes_table(kernel, {}, ""));
  const BootEnd end = machine.run(400'000'000);
  INFO("seed " << seed << '\n' << end.console << end.text);
  CHECK((end.kind == BootEnd::Kind::kTerminated));
}
}  // namespace
