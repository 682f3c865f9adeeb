#include "firmware/acpi_loader.hpp"

#include <catch2/catch.hpp>
#include <cstring>
#include <list>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "base/bytes.hpp"

namespace {
using namespace sevisor::firmware;

class Files final : public AcpiFiles {
 public:
  std::map<std::string, std::vector<std::byte>, std::less<>> content;
  std::list<std::vector<std::byte>> placed;
  std::uint64_t next_address = 0x7fe0000;
  std::vector<std::string> low_files;

  Failure place(std::string_view name, std::uint32_t alignment, bool low, AcpiBlob& blob) override {
    const auto file = content.find(name);
    if (file == content.end()) return Failure::kAcpiTables;
    if (low) low_files.emplace_back(name);
    next_address = sevisor::align_up(next_address, alignment);
    blob.bytes = placed.emplace_back(file->second);
    blob.address = next_address;
    next_address += blob.bytes.size();
    return Failure::kNone;
  }
};

using Entry = std::vector<std::byte>;

void put_name(Entry& entry, std::size_t at, std::string_view name) {
  std::memcpy(entry.data() + at, name.data(), name.size());
}
Entry allocate(std::string_view name, std::uint32_t alignment = 16, std::uint8_t zone = 1) {
  Entry entry(128);
  sevisor::store<std::uint32_t>(entry.data(), 1);
  put_name(entry, 4, name);
  sevisor::store(entry.data() + 60, alignment);
  sevisor::store(entry.data() + 64, zone);
  return entry;
}
Entry pointer(std::string_view to, std::string_view target, std::uint32_t offset, std::uint8_t size) {
  Entry entry(128);
  sevisor::store<std::uint32_t>(entry.data(), 2);
  put_name(entry, 4, to);
  put_name(entry, 60, target);
  sevisor::store(entry.data() + 116, offset);
  sevisor::store(entry.data() + 120, size);
  return entry;
}
Entry checksum(std::string_view file, std::uint32_t offset, std::uint32_t start, std::uint32_t length) {
  Entry entry(128);
  sevisor::store<std::uint32_t>(entry.data(), 3);
  put_name(entry, 4, file);
  sevisor::store(entry.data() + 60, offset);
  sevisor::store(entry.data() + 64, start);
  sevisor::store(entry.data() + 68, length);
  return entry;
}

struct Run {
  Files files;
  AcpiLoader loader;
  Failure failure = Failure::kNone;

  explicit Run(const std::vector<Entry>& entries) {
    files.content["etc/acpi/rsdp"] = std::vector<std::byte>(36, std::byte{1});
    files.content["etc/acpi/tables"] = std::vector<std::byte>(256);
    sevisor::store<std::uint32_t>(files.content["etc/acpi/rsdp"].data() + 16, 0x40);
    std::vector<std::byte> script;
    for (const auto& entry : entries) script.insert(script.end(), entry.begin(), entry.end());
    failure = loader.run(script, files);
  }
};

const std::string_view kRsdp = "etc/acpi/rsdp";
const std::string_view kTables = "etc/acpi/tables";

TEST_CASE("a script places, links and sums tables", "[firmware][acpi]") {
  Run run({allocate(kTables, 64), allocate(kRsdp, 16, 2), pointer(kRsdp, kTables, 16, 4), checksum(kRsdp, 8, 0, 20),
           Entry(128)});
  REQUIRE(run.failure == Failure::kNone);
  REQUIRE(run.files.low_files == std::vector<std::string>{"etc/acpi/rsdp"});
  const auto& rsdp = run.files.placed.back();
  REQUIRE(run.loader.rsdp() == 0x7fe0100);
  REQUIRE(sevisor::load<std::uint32_t>(rsdp.data() + 16) == 0x7fe0040);
  unsigned sum = 0;
  for (int i = 0; i < 20; ++i) sum += static_cast<unsigned>(rsdp[i]);
  REQUIRE(sum % 256 == 0);
  REQUIRE(rsdp[20] == std::byte{1});
}

TEST_CASE("a malformed script is refused", "[firmware][acpi]") {
  const std::string too_long(56, 'x');
  const std::vector<std::vector<Entry>> scripts = {
      {Entry(127)},
      {allocate("no/such/file")},
      {allocate("")},
      {allocate(too_long)},
      {allocate(kTables, 3)},
      {allocate(kTables, 0)},
      {allocate(kTables, 1u << 31)},
      {allocate(kTables, 16, 3)},
      {allocate(kTables), allocate(kTables)},
      {pointer(kRsdp, kTables, 16, 4)},
      {allocate(kRsdp), pointer(kRsdp, kTables, 16, 4)},
      {allocate(kRsdp), allocate(kTables), pointer(kRsdp, kTables, 33, 4)},
      {allocate(kRsdp), allocate(kTables), pointer(kRsdp, kTables, 0xffffffff, 4)},
      {allocate(kRsdp), allocate(kTables), pointer(kRsdp, kTables, 16, 3)},
      {allocate(kRsdp), allocate(kTables), pointer(kRsdp, kTables, 16, 2)},  // the address does not fit
      {allocate(kRsdp), allocate(kTables), pointer(kRsdp, kTables, 0, 4)},   // points behind the target
      {allocate(kRsdp), checksum(kRsdp, 36, 0, 1)},
      {allocate(kRsdp), checksum(kRsdp, 0, 0, 37)},
      {allocate(kRsdp), checksum(kRsdp, 0, 0xffffffff, 2)},
      {checksum(kRsdp, 0, 0, 1)},
  };
  for (std::size_t i = 0; i < scripts.size(); ++i) {
    INFO("script " << i);
    REQUIRE(Run(scripts[i]).failure == Failure::kAcpiTables);
  }
  Entry unknown(128);
  unknown[0] = std::byte{9};
  REQUIRE(Run({unknown}).failure == Failure::kAcpiTables);
}

TEST_CASE("random damage to a script never leaves its files", "[firmware][acpi]") {
  std::mt19937 random(11);  // NOLINT(cert-msc32-c,cert-msc51-cpp): the same bytes on every run
  const std::vector<Entry> good = {allocate(kTables, 64), allocate(kRsdp, 16, 2), pointer(kRsdp, kTables, 16, 4),
                                   checksum(kRsdp, 8, 0, 20)};
  unsigned refused = 0;
  for (int i = 0; i < 5000; ++i) {
    auto script = good;
    for (int n = 0; n < 3; ++n) script[random() % script.size()][random() % 128] = static_cast<std::byte>(random());
    // The sanitizers of the asan preset watch the accesses.
    if (Run(script).failure != Failure::kNone) ++refused;
  }
  REQUIRE(refused > 1000);
}
}  // namespace
