#include <catch2/catch.hpp>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <numeric>
#include <sstream>
#include <string>
#include <unistd.h>

#include "base/error.hpp"
#include "devices/acpi/tables.hpp"
#include "tests/devices/helpers.hpp"

namespace sevisor::devices::test {
namespace {

using acpi::Files;
using acpi::Machine;

// Applies a table-loader script as firmware does (QEMU hw/acpi/bios-linker-loader.c), into a memory of its own.
class Firmware {
 public:
  explicit Firmware(const Files& files) {
    contents_[acpi::kTablesFile] = files.tables;
    contents_[acpi::kRsdpFile] = files.rsdp;
    REQUIRE(files.loader.size() % 128 == 0);
    for (std::size_t at = 0; at < files.loader.size(); at += 128) run(files.loader.data() + at);
  }

  [[nodiscard]] std::uint64_t address_of(const std::string& file) const { return addresses_.at(file); }

  // `size` bytes at an address, which must lie in a file.
  [[nodiscard]] std::vector<std::byte> at(std::uint64_t address, std::size_t size) const {
    for (const auto& [name, base] : addresses_) {
      const auto& bytes = contents_.at(name);
      if (address < base || address - base > bytes.size() || size > bytes.size() - (address - base)) continue;
      const auto from = bytes.begin() + static_cast<std::ptrdiff_t>(address - base);
      return {from, from + static_cast<std::ptrdiff_t>(size)};
    }
    FAIL("address " << std::hex << address << " lies in no file");
    return {};
  }

 private:
  static std::string name(const std::byte* from) {
    const auto* text = reinterpret_cast<const char*>(from);
    REQUIRE(text[55] == '\0');
    return text;
  }

  void run(const std::byte* command) {
    const std::string file = name(command + 4);
    auto& bytes = contents_.at(file);
    switch (load<std::uint32_t>(command)) {
      case 1: {
        const auto alignment = load<std::uint32_t>(command + 60);
        const auto zone = load<std::uint8_t>(command + 64);
        REQUIRE(addresses_.count(file) == 0);
        addresses_[file] = zone == 2 ? 0xf5a40U : 0x7ff00000U + alignment;
        REQUIRE(addresses_[file] % alignment == 0);
        break;
      }
      case 2: {
        const auto offset = load<std::uint32_t>(command + 116);
        const auto size = load<std::uint8_t>(command + 120);
        REQUIRE((size == 4 || size == 8));
        REQUIRE(offset + size <= bytes.size());
        const std::string pointed_to = name(command + 60);
        const auto value = size == 8 ? load<std::uint64_t>(&bytes[offset]) : load<std::uint32_t>(&bytes[offset]);
        REQUIRE(value < contents_.at(pointed_to).size());
        const std::uint64_t address = value + addresses_.at(pointed_to);
        REQUIRE((size == 8 || address >> 32 == 0));
        if (size == 8) {
          store(&bytes[offset], address);
        } else {
          store(&bytes[offset], static_cast<std::uint32_t>(address));
        }
        break;
      }
      case 3: {
        const auto offset = load<std::uint32_t>(command + 60);
        const auto start = load<std::uint32_t>(command + 64);
        const auto length = load<std::uint32_t>(command + 68);
        REQUIRE(start <= offset);
        REQUIRE(start + length <= bytes.size());
        REQUIRE(offset < start + length);
        std::uint8_t sum = 0;
        for (std::size_t i = start; i < start + length; ++i)
          sum = static_cast<std::uint8_t>(sum + std::to_integer<unsigned>(bytes[i]));
        bytes[offset] = static_cast<std::byte>(std::to_integer<unsigned>(bytes[offset]) - sum);
        break;
      }
      default:
        FAIL("unknown loader command");
    }
  }

  std::map<std::string, std::vector<std::byte>> contents_;
  std::map<std::string, std::uint64_t> addresses_;
};

bool sums_to_zero(std::span<const std::byte> bytes) {
  unsigned sum = 0;
  for (const std::byte byte : bytes) sum += std::to_integer<unsigned>(byte);
  return sum % 256 == 0;
}

std::string text(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// The tables by signature, found from the RSDP as an operating system does, every checksum right.
std::map<std::string, std::vector<std::byte>> walk(const Firmware& firmware) {
  const auto rsdp = firmware.at(firmware.address_of(acpi::kRsdpFile), 36);
  REQUIRE(text(std::span(rsdp).first(8)) == "RSD PTR ");
  REQUIRE(sums_to_zero(std::span(rsdp).first(20)));
  REQUIRE(sums_to_zero(rsdp));
  REQUIRE(load<std::uint8_t>(&rsdp[15]) == 2);
  REQUIRE(load<std::uint32_t>(&rsdp[16]) == 0);  // no RSDT
  REQUIRE(load<std::uint32_t>(&rsdp[20]) == 36);

  std::map<std::string, std::vector<std::byte>> tables;
  const auto take = [&](std::uint64_t address) {
    const auto header = firmware.at(address, 36);
    auto table = firmware.at(address, load<std::uint32_t>(&header[4]));
    const std::string signature = text(std::span(table).first(4));
    INFO("table " << signature);
    REQUIRE(sums_to_zero(table));
    REQUIRE(tables.count(signature) == 0);
    return tables[signature] = table;
  };
  const auto xsdt = take(load<std::uint64_t>(&rsdp[24]));
  REQUIRE((xsdt.size() - 36) % 8 == 0);
  for (std::size_t at = 36; at < xsdt.size(); at += 8) take(load<std::uint64_t>(&xsdt[at]));
  take(load<std::uint64_t>(&tables.at("FACP")[140]));
  return tables;
}

Machine machine_with(unsigned cpus) {
  Machine machine;
  machine.apic_ids.resize(cpus);
  std::iota(machine.apic_ids.begin(), machine.apic_ids.end(), 0U);
  return machine;
}

TEST_CASE("ACPI: the loader script leads from the RSDP to tables with right checksums") {
  const auto tables = walk(Firmware(acpi::build(machine_with(2))));
  std::string names;
  for (const auto& [name, bytes] : tables) names += name + " ";
  CHECK(names == "APIC DSDT FACP XSDT ");
}

TEST_CASE("ACPI: the FADT has the fixed hardware of QEMU's Q35 and a reset register") {
  const auto tables = walk(Firmware(acpi::build(machine_with(1))));
  const auto& fadt = tables.at("FACP");
  REQUIRE(fadt.size() == 276);
  CHECK(load<std::uint8_t>(&fadt[8]) == 6);
  // Bit 4 is clear: there is a fixed power button.
  CHECK(load<std::uint32_t>(&fadt[112]) == ((1U << 10) | (1U << 6) | (1U << 5) | 1U));
  const auto io_register = [](unsigned port) {
    return from_hex({1, 8, 0, 1, port & 0xff, port >> 8, 0, 0, 0, 0, 0, 0});
  };
  const auto at = [&](std::size_t offset) {
    const auto from = fadt.begin() + static_cast<std::ptrdiff_t>(offset);
    return std::vector<std::byte>(from, from + 12);
  };
  CHECK(at(116) == io_register(0xcf9));
  CHECK(load<std::uint8_t>(&fadt[128]) == 6);
  CHECK(load<std::uint16_t>(&fadt[46]) == 9);  // SCI
  CHECK(load<std::uint32_t>(&fadt[48]) == 0);  // no SMI command port: always in ACPI mode
  CHECK(load<std::uint32_t>(&fadt[56]) == 0x600);
  CHECK(load<std::uint8_t>(&fadt[88]) == 4);
  CHECK(at(148) == from_hex({1, 32, 0, 3, 0, 6, 0, 0, 0, 0, 0, 0}));
  CHECK(load<std::uint32_t>(&fadt[64]) == 0x604);
  CHECK(load<std::uint8_t>(&fadt[89]) == 2);
  CHECK(at(172) == from_hex({1, 16, 0, 2, 4, 6, 0, 0, 0, 0, 0, 0}));
  CHECK(load<std::uint16_t>(&fadt[109]) == 0x15);  // legacy devices, no VGA, no ASPM; RTC yes, 8042 no
  CHECK(load<std::uint8_t>(&fadt[108]) == 0x32);
  // PM1b, PM2 and general-purpose events; sleep registers of hardware-reduced machines.
  for (const std::size_t offset : {160, 184, 196, 220, 232, 244, 256}) {
    CHECK(at(offset) == std::vector<std::byte>(12));
  }
}

TEST_CASE("ACPI: the FADT leads to the FACS") {
  const Firmware firmware(acpi::build(machine_with(1)));
  const auto address = load<std::uint32_t>(&walk(firmware).at("FACP")[36]);
  CHECK(address % 64 == 0);
  const auto facs = firmware.at(address, 64);
  CHECK(text(std::span(facs).first(4)) == "FACS");
  CHECK(load<std::uint32_t>(&facs[4]) == 64);
}

TEST_CASE("ACPI: the PM timer is announced with 24 bits") {
  const auto tables = walk(Firmware(acpi::build(machine_with(1))));
  const auto& fadt = tables.at("FACP");
  CHECK(load<std::uint32_t>(&fadt[76]) == 0x608);
  CHECK(load<std::uint8_t>(&fadt[91]) == 4);
  CHECK(std::vector<std::byte>(fadt.begin() + 208, fadt.begin() + 220) ==
        from_hex({1, 32, 0, 3, 8, 6, 0, 0, 0, 0, 0, 0}));
  CHECK((load<std::uint32_t>(&fadt[112]) & (1U << 8)) == 0);  // TMR_VAL_EXT
}

TEST_CASE("ACPI: what the machine lacks is not announced") {
  Machine machine = machine_with(1);
  machine.rtc = false;
  machine.com1 = false;
  const auto tables = walk(Firmware(acpi::build(machine)));
  const auto& fadt = tables.at("FACP");
  CHECK((load<std::uint16_t>(&fadt[109]) & (1U << 5)) != 0);  // no RTC
  CHECK(load<std::uint8_t>(&fadt[108]) == 0);
  CHECK(text(tables.at("DSDT")).find("COM1") == std::string::npos);
  CHECK(text(tables.at("DSDT")).find("RTC") == std::string::npos);
  CHECK(text(tables.at("DSDT")).find("QEMU0001") == std::string::npos);
}

TEST_CASE("ACPI: the MADT lists CPUs, IOAPIC and NMI input") {
  const auto tables = walk(Firmware(acpi::build(machine_with(2))));
  const auto& madt = tables.at("APIC");
  const std::vector<std::byte> entries(madt.begin() + 36, madt.end());
  CHECK(entries == from_hex({0x00, 0x00, 0xe0, 0xfe, 1,    0,    0,    0,  // LAPIC address, PCAT_COMPAT
                             0,    8,    0,    0,    1,    0,    0,    0,  // CPU 0
                             0,    8,    1,    1,    1,    0,    0,    0,  // CPU 1
                             1,    12,   0,    0,    0x00, 0x00, 0xc0, 0xfe, 0,    0, 0, 0,  // IOAPIC from GSI 0
                             2,    10,   0,    9,    9,    0,    0,    0,    0x0d, 0,        // SCI: level, active high
                             4,    6,    0xff, 0,    0,    1}));                             // NMI at LINT1
}

TEST_CASE("ACPI: a machine without 8259s says so") {
  Machine machine = machine_with(1);
  machine.pic = false;
  const auto tables = walk(Firmware(acpi::build(machine)));
  CHECK(tables.at("APIC")[40] == std::byte{0});  // flags
}

TEST_CASE("ACPI: APIC IDs from 255 on get x2APIC entries") {
  Machine machine = machine_with(254);
  machine.apic_ids.push_back(254);
  machine.apic_ids.push_back(255);
  machine.apic_ids.push_back(0x12345);
  machine.apic_ids.push_back(256);
  const auto tables = walk(Firmware(acpi::build(machine)));
  const auto& madt = tables.at("APIC");
  std::map<unsigned, unsigned> kinds;
  std::vector<std::byte> first_x2;
  std::size_t at = 44;
  while (at < madt.size()) {
    const auto length = load<std::uint8_t>(&madt[at + 1]);
    REQUIRE(length >= 2);
    REQUIRE(at + length <= madt.size());
    if (madt[at] == std::byte{9} && first_x2.empty()) {
      first_x2.assign(madt.begin() + static_cast<std::ptrdiff_t>(at),
                      madt.begin() + static_cast<std::ptrdiff_t>(at + length));
    }
    ++kinds[std::to_integer<unsigned>(madt[at])];
    at += length;
  }
  CHECK(kinds == std::map<unsigned, unsigned>{{0, 255}, {1, 1}, {2, 1}, {4, 1}, {9, 3}, {10, 1}});
  CHECK(first_x2 == from_hex({9, 16, 0, 0, 255, 0, 0, 0, 1, 0, 0, 0, 255, 0, 0, 0}));
}

TEST_CASE("ACPI: an inconsistent machine is refused") {
  CHECK_THROWS_AS(acpi::build(Machine{}), Error);
  Machine machine = machine_with(2);
  machine.apic_ids[1] = 0;
  CHECK_THROWS_AS(acpi::build(machine), Error);
}

// Disassembles a table with iasl; an empty string when that fails.
std::string disassemble(const std::filesystem::path& folder, const std::string& name,
                        const std::vector<std::byte>& table) {
  const auto path = folder / (name + ".aml");
  std::ofstream(path, std::ios::binary)
      .write(reinterpret_cast<const char*>(table.data()), static_cast<std::streamsize>(table.size()));
  const std::string command = "cd '" + folder.string() + "' && iasl -d " + name + ".aml > " + name + ".log 2>&1";
  // NOLINTNEXTLINE(cert-env33-c): a fixed command in a fresh folder
  if (std::system(command.c_str()) != 0) return {};
  std::stringstream all;
  all << std::ifstream(folder / (name + ".log")).rdbuf() << std::ifstream(folder / (name + ".dsl")).rdbuf();
  return all.str();
}

TEST_CASE("ACPI: iasl understands the tables") {
  // NOLINTNEXTLINE(cert-env33-c)
  if (std::system("command -v iasl > /dev/null 2>&1") != 0) {
    WARN("SKIP: iasl is not installed (Debian: acpica-tools)");
    return;
  }
  char folder_name[] = "/tmp/sevisor-acpi-XXXXXX";
  REQUIRE(::mkdtemp(folder_name) != nullptr);
  const std::filesystem::path folder = folder_name;
  Machine machine = machine_with(2);
  machine.apic_ids.push_back(300);
  machine.pvpanic_port = 0x505;
  for (const auto& [name, table] : walk(Firmware(acpi::build(machine)))) {
    INFO(name);
    const std::string source = disassemble(folder, name, table);
    CHECK_FALSE(source.empty());
    CHECK(source.find("Error") == std::string::npos);
    CHECK(source.find("Incorrect checksum") == std::string::npos);
    CHECK(source.find("Unknown") == std::string::npos);
    if (name == "DSDT") {
      for (const char* expected :
           {"Scope (\\_SB)", "Device (COM1)", "EisaId (\"PNP0501\")", "0x03F8,", "IRQNoFlags ()", "{4}", "Device (RTC)",
            "EisaId (\"PNP0B00\")", "{8}", "Name (\\_S5, Package (0x04)", "Device (PEVT)", "\"QEMU0001\"", "0x0505,"}) {
        INFO(expected);
        CHECK(source.find(expected) != std::string::npos);
      }
      // And back: what iasl compiles from its own disassembly has no errors.
      const std::string command = "cd '" + folder.string() + "' && iasl -p again DSDT.dsl > again.log 2>&1";
      CHECK(std::system(command.c_str()) == 0);  // NOLINT(cert-env33-c)
    }
    if (name == "FACP") {
      CHECK(source.find("Hardware Reduced (V5) : 0") != std::string::npos);
      CHECK(source.find("Reset Register Supported (V2) : 1") != std::string::npos);
    }
  }
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace sevisor::devices::test
