#include <array>
#include <catch2/catch.hpp>
#include <sched.h>
#include <string>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#include <vector>

#include "base/bytes.hpp"
#include "base/error.hpp"
#include "vmm/machine/guest_ram.hpp"
#include "vmm/machine/memory_map.hpp"
#include "vmm/machine/platform.hpp"
#include "vmm/run/vcpu_threads.hpp"
#include "vmm/text/seconds_text.hpp"
#include "vmm/text/size_text.hpp"

using namespace sevisor;
using namespace sevisor::vmm;

namespace {

constexpr std::uint64_t kMiB = 1 << 20;
constexpr std::uint64_t kGiB = 1 << 30;

class StillClock final : public devices::Clock {
 public:
  std::uint64_t now_ns() override { return 0; }
};

}  // namespace

TEST_CASE("sizes are read with their units") {
  CHECK(parse_size("--memory", "512M") == 512 * kMiB);
  CHECK(parse_size("--memory", "2G") == 2 * kGiB);
  CHECK(parse_size("--memory", "2g") == 2 * kGiB);
  CHECK(parse_size("--memory", "262144K") == 256 * kMiB);
  CHECK(parse_size("--memory", "1T") == 1024 * kGiB);
  CHECK(parse_size("--memory", "256") == 256 * kMiB);
  CHECK(parse_size("--memory", "0") == 0);
  for (const char* text : {"", "M", "12X", "-1", "1.5G", "1 G", "0x10", "16777216T", "18446744073709551616K"}) {
    CAPTURE(text);
    CHECK_THROWS_AS(parse_size("--memory", text), Error);
  }
}

TEST_CASE("sizes are written with the largest unit that fits") {
  CHECK(size_text(512 * kMiB) == "512 MiB");
  CHECK(size_text(2 * kGiB) == "2 GiB");
  CHECK(size_text(kGiB + kMiB) == "1025 MiB");
  CHECK(size_text(4095) == "4095 bytes");
  CHECK(size_text(0) == "0 bytes");
}

TEST_CASE("seconds are whole or fractional, to the next millisecond") {
  using std::chrono::milliseconds;
  const auto parse = [](std::string_view text) { return parse_seconds(text, std::chrono::seconds(1000)); };
  CHECK(parse("300") == milliseconds(300'000));
  CHECK(parse("0.5") == milliseconds(500));
  CHECK(parse(".25") == milliseconds(250));
  CHECK(parse("5.") == milliseconds(5000));
  CHECK(parse("1.2345") == milliseconds(1235));
  CHECK(parse("1.2340") == milliseconds(1234));
  CHECK(parse("0.0000001") == milliseconds(1));
  CHECK(parse("999.9995") == milliseconds(1'000'000));
  CHECK(parse("1000") == milliseconds(1'000'000));
  for (const char* text : {"", ".", "0", "0.000", "-5", "+5", "soon", "1e3", "5s", "1.2.3", " 1", "1 ", "1000.001",
                           "1001", "99999999999999999999", "0x10", "1,5"}) {
    INFO(text);
    CHECK_FALSE(parse(text));
  }
}

TEST_CASE("memory lies below the device hole, the rest from 4 GiB on") {
  const MemoryMap small = make_memory_map(512 * kMiB);
  REQUIRE(small.ram.size() == 1);
  CHECK(small.low_size() == 512 * kMiB);
  CHECK(small.high_size() == 0);

  const MemoryMap full = make_memory_map(2816 * kMiB);  // up to where OVMF wants PCI's configuration space on Q35
  CHECK(full.ram.size() == 1);
  CHECK(full.low_size() == 2816 * kMiB);

  const MemoryMap eight = make_memory_map(8 * kGiB);
  REQUIRE(eight.ram.size() == 2);
  CHECK(eight.low_size() == 2816 * kMiB);
  CHECK(eight.ram[1].base == Gpa(4 * kGiB));
  CHECK(eight.high_size() == 5376 * kMiB);

  for (const std::uint64_t bad : {std::uint64_t{0}, kMiB, 64 * kMiB + 1, kMaxMemory + 4096, ~std::uint64_t{0}}) {
    CAPTURE(bad);
    CHECK_THROWS_AS(make_memory_map(bad), Error);
  }
}

TEST_CASE("devices reach guest memory within its bounds and nowhere else") {
  GuestRam ram(MemoryMap{{{Gpa(0), 64 * 1024}, {Gpa(4 * kGiB), 4096}}});
  std::vector<std::byte> data(16, std::byte{0x5a});
  std::vector<std::byte> back(16);
  CHECK(ram.write(Gpa(64 * 1024 - 16), data));
  CHECK(ram.read(Gpa(64 * 1024 - 16), back));
  CHECK(back == data);
  CHECK(ram.write(Gpa(4 * kGiB + 4080), data));
  CHECK_FALSE(ram.write(Gpa(64 * 1024 - 15), data));
  CHECK_FALSE(ram.write(Gpa(64 * 1024), data));
  CHECK_FALSE(ram.read(Gpa(4 * kGiB - 8), back));
  CHECK_FALSE(ram.read(Gpa(~std::uint64_t{0}), back));
  CHECK_FALSE(ram.read(Gpa(~std::uint64_t{0} - 15), back));
  CHECK(ram.read(Gpa(~std::uint64_t{0}), {}));
}

TEST_CASE("the platform hands the kernel over as fw_cfg has it, and powers off and resets") {
  GuestRam ram(make_memory_map(64 * kMiB));
  StillClock clock;
  std::string printed;
  std::vector<devices::MachineEvent> events;
  std::vector<std::pair<std::uint32_t, bool>> interrupts;
  Platform platform({.dma = ram,
                     .clock = clock,
                     .set_irq = [&](std::uint32_t gsi, bool level) { interrupts.emplace_back(gsi, level); },
                     .console =
                         [&](std::span<const std::byte> bytes) {
                           printed.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
                         },
                     .events = [&](const devices::MachineEvent& event) { events.push_back(event); }},
                    {.vcpus = 2, .memory = make_memory_map(64 * kMiB), .rtc_time = 0});
  const auto kernel = std::make_shared<const std::vector<std::byte>>(2000, std::byte{0x11});
  KernelImage header;
  header.setup_size = 1024;
  platform.add_kernel(kernel, header, nullptr, "console=ttyS0");

  const Buses buses = platform.buses();
  const auto out = [&](std::uint64_t port, std::uint16_t value, std::size_t size) {
    buses.ports.write(port, std::as_bytes(std::span(&value, 1)).first(size));
  };
  const auto item = [&](devices::FwCfgKey key, std::size_t size) {
    out(devices::kFwCfgPort, static_cast<std::uint16_t>(key), 2);
    std::vector<std::byte> bytes(size);
    buses.ports.read_string(devices::kFwCfgPort + 1, 1, bytes);
    return bytes;
  };
  CHECK(item(devices::FwCfgKey::kKernelSize, 4) ==
        std::vector<std::byte>{std::byte{0xd0}, std::byte{0x03}, std::byte{0}, std::byte{0}});
  CHECK(item(devices::FwCfgKey::kSetupSize, 4)[1] == std::byte{0x04});
  CHECK(item(devices::FwCfgKey::kCpuCount, 2)[0] == std::byte{2});
  const auto cmdline = item(devices::FwCfgKey::kCommandLineData, 14);
  CHECK(std::string(reinterpret_cast<const char*>(cmdline.data())) == "console=ttyS0");
  CHECK(item(devices::FwCfgKey::kCommandLineSize, 4)[0] == std::byte{14});

  out(devices::kCom1Port, 'A', 1);
  CHECK(printed == "A");
  out(devices::kCom1Port + 1, 0x02, 1);  // interrupt when the transmitter is empty
  CHECK(interrupts == std::vector<std::pair<std::uint32_t, bool>>{{devices::kCom1Irq, true}});

  out(devices::kPm1Port + devices::kPm1ControlOffset, 1U << 13 | devices::kSleepTypeS5 << 10, 2);
  out(devices::kResetPort, devices::kResetValue, 1);
  REQUIRE(events.size() == 2);
  CHECK(events[0].kind == devices::MachineEvent::Kind::kPowerOff);
  CHECK(events[1].kind == devices::MachineEvent::Kind::kReset);
}

TEST_CASE("the platform has the flash where it is mapped, and PCI's configuration space") {
  GuestRam ram(make_memory_map(64 * kMiB));
  StillClock clock;
  std::vector<std::byte> flash(0x2000, std::byte{0x77});
  std::vector<std::size_t> changes;
  const Platform platform({.dma = ram, .clock = clock, .set_irq = {}, .console = {}, .events = {}},
                          {.vcpus = 1,
                           .memory = make_memory_map(64 * kMiB),
                           .rtc_time = 0,
                           .flash = {Gpa(0xffe00000), flash, [&](std::size_t offset, std::size_t size) {
                                       changes.push_back(offset);
                                       changes.push_back(size);
                                     }}});
  const devices::Bus& mmio = platform.buses().mmio;
  const auto write = [&](std::uint64_t at, unsigned value) {
    const auto byte = static_cast<std::byte>(value);
    return mmio.write(at, std::span(&byte, 1));
  };
  CHECK(write(0xffe01fff, 0x10));
  CHECK(write(0xffe01fff, 0x42));
  CHECK(flash[0x1fff] == std::byte{0x42});
  CHECK(changes == std::vector<std::size_t>{0x1fff, 1});
  CHECK_FALSE(write(0xffe02000, 0));  // the firmware's memory
  std::byte value{};

  // PCIEXBAR: at 0xe0000000, then over RAM and over the flash, which both stay what they are.
  const auto ecam_at = [&](std::uint32_t bar) {
    const auto out = [&](std::uint16_t port, std::uint32_t dword) {
      std::array<std::byte, 4> bytes{};
      store(bytes.data(), dword);
      CHECK(platform.buses().ports.write(port, bytes));
    };
    out(devices::kPciConfigPort, 0x80000060);
    out(devices::kPciConfigPort + 4, bar);
  };
  const auto read = [&](std::uint64_t at) {
    mmio.read(at, std::span(&value, 1));
    return value;
  };
  ecam_at(0xe0000001);
  CHECK(read(0xe0000000) == std::byte{0x86});
  ecam_at(1);
  CHECK(read(0) == std::byte{0xff});
  CHECK(read(64 * kMiB - 1) == std::byte{0xff});
  CHECK(mmio.read(64 * kMiB, std::span(&value, 1)));  // bus 64: the window goes on behind the RAM
  ecam_at(0xf0000001);
  CHECK(read(0xf0000000) == std::byte{0x86});
  CHECK_FALSE(read(0xffe01fff) == std::byte{0x86});
}

// What Q35's firmware may choose: RAM ends below both of OVMF's places for PCI's memory-mapped configuration space.
TEST_CASE("no RAM lies where OVMF puts the configuration space") {
  for (const std::uint64_t memory : {64 * kMiB, 2816 * kMiB, 2817 * kMiB, 65536 * kMiB}) {
    for (const RamRange& range : make_memory_map(memory).ram) {
      for (const std::uint64_t base : {0xb0000000ULL, 0xe0000000ULL}) {
        CHECK((range.base.value >= base + 256 * kMiB || range.base.value + range.size <= base));
      }
    }
  }
}

TEST_CASE("guest memory lies so that large pages fit, and no child process has it") {
  const GuestRam ram(make_memory_map(std::uint64_t{33} << 20), HugePages::kTransparent);
  std::byte* const begin = ram.regions()[0].memory.data();
  CHECK(reinterpret_cast<std::uintptr_t>(begin) % (2 << 20) == 0);
  begin[0] = std::byte{1};
  begin[(33 << 20) - 1] = std::byte{1};
  const pid_t pid = ::fork();
  if (pid == 0) {
    unsigned char resident = 0;
    ::_exit(::mincore(begin, 1, &resident) == 0 ? 1 : 7);  // ENOMEM: not mapped
  }
  int status = 0;
  ::waitpid(pid, &status, 0);
  CHECK(WEXITSTATUS(status) == 7);
}

TEST_CASE("huge pages that are not there, or do not divide the memory, are told") {
  CHECK_THROWS_AS(GuestRam(make_memory_map(std::uint64_t{33} << 20), HugePages::k2M), Error);
  CHECK_THROWS_AS(GuestRam(make_memory_map(std::uint64_t{1} << 40), HugePages::k2M), Error);
}

TEST_CASE("lists of CPUs are read, and CPUs that this process may not use refused") {
  cpu_set_t allowed;
  REQUIRE(::sched_getaffinity(0, sizeof allowed, &allowed) == 0);
  unsigned first = 0;
  while (!CPU_ISSET(first, &allowed)) ++first;
  const std::string one = std::to_string(first);
  CHECK(parse_cpu_list(one) == std::vector<unsigned>{first});
  CHECK(parse_cpu_list(one + "," + one) == std::vector<unsigned>{first, first});
  CHECK(parse_cpu_list(one + "-" + one) == std::vector<unsigned>{first});
  for (const std::string bad : {"", "x", "-1", "1-0", "0,", ",0", "0-", "1000", "0x1", "99999999999"}) {
    INFO(bad);
    CHECK_THROWS_AS(parse_cpu_list(bad), Error);
  }
}
