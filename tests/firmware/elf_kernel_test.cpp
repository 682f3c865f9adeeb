// ELF kernels, against the System V ABI's layout and Xen's pvh.pandoc.
#include "firmware/elf_kernel.hpp"

#include <catch2/catch.hpp>
#include <utility>

#include "base/bytes.hpp"
#include "firmware/pvh.hpp"
#include "small_elf.hpp"

namespace {
using namespace sevisor;
using namespace sevisor::firmware;
using test::SmallElf;

constexpr std::uint8_t kCode[] = {0xf4, 0xeb, 0xfd};
constexpr std::size_t kFirstHeader = SmallElf::kProgramHeaders;

Failure parse(std::span<const std::byte> file) {
  ElfKernel kernel;
  return parse_elf(file, kernel);
}

template <class T>
Failure parse_with(std::size_t at, T value) {
  auto file = SmallElf{.code = kCode, .pvh_entry = 0x1000001}.make();
  store<T>(file.data() + at, value);
  return parse(file);
}

TEST_CASE("an ELF-64 file has a 64-bit entry, and a PVH entry if its notes name one", "[firmware][elf]") {
  ElfKernel kernel;
  REQUIRE(parse_elf(SmallElf{.code = kCode}.make(), kernel) == Failure::kNone);
  CHECK(kernel.entry == 0x1000000U);
  CHECK_FALSE(kernel.pvh_entry);
  CHECK(kernel.begin == 0x1000000);
  CHECK(kernel.end == 0x1003000);
  REQUIRE(kernel.count == 1);
  CHECK(kernel.segments[0].offset == SmallElf::kCode);
  CHECK(kernel.segments[0].size == sizeof kCode);

  REQUIRE(parse_elf(SmallElf{.code = kCode, .pvh_entry = 0x1000002}.make(), kernel) == Failure::kNone);
  CHECK(kernel.pvh_entry == 0x1000002U);
}

TEST_CASE("an ELF-32 file has its PVH entry only", "[firmware][elf]") {
  ElfKernel kernel;
  REQUIRE(parse_elf(SmallElf{.wide = false, .code = kCode, .pvh_entry = 0x1000000}.make(), kernel) == Failure::kNone);
  CHECK_FALSE(kernel.entry);
  CHECK(kernel.pvh_entry == 0x1000000U);
  CHECK(kernel.end == 0x1003000);
  CHECK(parse(SmallElf{.wide = false, .code = kCode}.make()) == Failure::kElfEntry);
}

TEST_CASE("other ELF files are refused", "[firmware][elf]") {
  CHECK(parse_with<std::uint8_t>(4, 3) == Failure::kElfMachine);
  CHECK(parse_with<std::uint8_t>(5, 2) == Failure::kElfMachine);      // big-endian
  CHECK(parse_with<std::uint16_t>(16, 3) == Failure::kElfMachine);    // shared object
  CHECK(parse_with<std::uint16_t>(18, 183) == Failure::kElfMachine);  // AArch64
  CHECK(parse_with<std::uint16_t>(18, 3) == Failure::kElfMachine);    // i386 in ELF-64
}

TEST_CASE("malformed ELF files are refused", "[firmware][elf]") {
  CHECK(parse_with<std::uint32_t>(0, 0) == Failure::kElf);
  CHECK(parse_with<std::uint64_t>(32, ~std::uint64_t{0}) == Failure::kElf);  // program headers outside
  CHECK(parse_with<std::uint64_t>(32, 0x7ff) == Failure::kElf);
  CHECK(parse_with<std::uint16_t>(54, 57) == Failure::kElf);
  CHECK(parse_with<std::uint16_t>(56, 0) == Failure::kElf);
  CHECK(parse_with<std::uint16_t>(56, 0xffff) == Failure::kElf);
  CHECK(parse_with<std::uint32_t>(kFirstHeader, 0) == Failure::kElf);  // nothing to load
  const auto segment = [](std::size_t field, std::uint64_t value) { return parse_with(kFirstHeader + field, value); };
  CHECK(segment(8, 0x100000) == Failure::kElf);  // offset
  CHECK(segment(8, ~std::uint64_t{0}) == Failure::kElf);
  CHECK(segment(32, 0x3001) == Failure::kElf);  // more bytes than memory
  CHECK(segment(32, ~std::uint64_t{0}) == Failure::kElf);
  CHECK(segment(24, 0xfffff) == Failure::kElf);     // below 1 MiB
  CHECK(segment(24, 0xbffff000) == Failure::kElf);  // ends above 3 GiB
  CHECK(segment(24, ~std::uint64_t{0}) == Failure::kElf);
  CHECK(segment(40, 0) == Failure::kElf);  // bytes without memory
  CHECK(segment(40, ~std::uint64_t{0}) == Failure::kElf);
  CHECK(parse_with<std::uint64_t>(kFirstHeader + 56 + 8, 0x100000) == Failure::kElf);  // notes outside
  const auto whole = SmallElf{.code = kCode}.make();
  for (std::size_t size = 0; size < 64; ++size) {
    CHECK(parse(std::span(whole).first(size)) == Failure::kElf);
  }
}

TEST_CASE("an entry must lie in what is loaded", "[firmware][elf]") {
  CHECK(parse_with<std::uint32_t>(SmallElf::kNotes + 40, 0x1003000) == Failure::kElfEntry);
  auto file = SmallElf{.code = kCode}.make();
  store<std::uint64_t>(file.data() + 24, 0xffffffff81000000);
  CHECK(parse(file) == Failure::kElfEntry);
}

TEST_CASE("notes that end too early are no notes", "[firmware][elf]") {
  for (const std::uint32_t size : {0U, 11U, 23U, 35U, 43U}) {
    auto file = SmallElf{.code = kCode, .pvh_entry = 0x1000002}.make();
    store<std::uint64_t>(file.data() + kFirstHeader + 56 + 32, size);
    ElfKernel kernel;
    REQUIRE(parse_elf(file, kernel) == Failure::kNone);
    CHECK_FALSE(kernel.pvh_entry);
  }
  for (const std::size_t field : {0, 4}) {
    ElfKernel kernel;
    auto file = SmallElf{.code = kCode, .pvh_entry = 0x1000002}.make();
    store<std::uint32_t>(file.data() + SmallElf::kNotes + field, 0xffffffff);
    REQUIRE(parse_elf(file, kernel) == Failure::kNone);
    CHECK_FALSE(kernel.pvh_entry);
  }
}

// Offsets of Xen's start_info.h.
TEST_CASE("hvm_start_info names initrd, command line, RSDP and memory", "[firmware][pvh]") {
  constexpr std::uint64_t kAt = 0x6000;
  MemoryMap map;
  REQUIRE(map.set(0, 0x20000000, MemoryType::kRam));
  REQUIRE(map.set(0x1fff0000, 0x20000000, MemoryType::kAcpi));
  std::vector<std::byte> bytes(kStartInfoBytes);
  const std::span<std::byte, kStartInfoBytes> info(bytes.data(), kStartInfoBytes);
  fill_start_info(info, kAt, {.command_line = 0x2000, .initrd = 0x1f000000, .initrd_size = 5000, .rsdp = 0x1fff0000},
                  map);
  const auto u32 = [&](std::size_t at) { return load<std::uint32_t>(bytes.data() + at); };
  const auto u64 = [&](std::size_t at) { return load<std::uint64_t>(bytes.data() + at); };
  CHECK(u32(0) == 0x336ec578);
  CHECK(u32(4) == 1);
  CHECK(u32(12) == 1);
  CHECK(u64(24) == 0x2000);
  CHECK(u64(32) == 0x1fff0000);
  const std::size_t module = u64(16) - kAt;
  CHECK(u64(module) == 0x1f000000);
  CHECK(u64(module + 8) == 5000);
  CHECK(u64(module + 16) == 0);
  REQUIRE(u32(48) == 2);
  const std::size_t ranges = u64(40) - kAt;
  CHECK(u64(ranges) == 0);
  CHECK(u64(ranges + 8) == 0x1fff0000);
  CHECK(u32(ranges + 16) == 1);
  CHECK(u64(ranges + 24) == 0x1fff0000);
  CHECK(u32(ranges + 40) == 3);
}
}  // namespace
