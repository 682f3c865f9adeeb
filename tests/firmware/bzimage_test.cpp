#include "firmware/bzimage.hpp"

#include <catch2/catch.hpp>
#include <random>
#include <vector>

#include "base/bytes.hpp"

namespace {
using namespace sevisor::firmware;
using sevisor::load;
using sevisor::store;

constexpr std::uint64_t kKernelSize = 0xd827c0;
constexpr std::uint64_t kSetupSize = 0x5000;

// The header of Debian's 6.1 cloud kernel, field by field.
std::vector<std::byte> debian_setup() {
  std::vector<std::byte> setup(4096, std::byte{0xcc});
  auto* bytes = setup.data();
  store<std::uint8_t>(bytes + 0x1f1, 0x27);
  store<std::uint32_t>(bytes + 0x1f4, kKernelSize / 16);
  store<std::uint16_t>(bytes + 0x1fe, 0xaa55);
  store<std::uint16_t>(bytes + 0x200, 0x6aeb);
  store<std::uint32_t>(bytes + 0x202, 0x53726448);
  store<std::uint16_t>(bytes + 0x206, 0x020f);
  store<std::uint8_t>(bytes + 0x210, 0);
  store<std::uint8_t>(bytes + 0x211, 1);
  store<std::uint32_t>(bytes + 0x22c, 0x7fffffff);
  store<std::uint32_t>(bytes + 0x230, 0x200000);
  store<std::uint8_t>(bytes + 0x234, 1);
  store<std::uint16_t>(bytes + 0x236, 0x7f);
  store<std::uint32_t>(bytes + 0x238, 0x7ff);
  store<std::uint64_t>(bytes + 0x250, 0x1234);
  store<std::uint64_t>(bytes + 0x258, 0x1000000);
  store<std::uint32_t>(bytes + 0x260, 0x3378000);
  return setup;
}

Failure parse(const std::vector<std::byte>& setup) {
  KernelHeader header;
  return parse_kernel(setup, kSetupSize, kKernelSize, header);
}
template <class T>
Failure parse_with(std::size_t at, T value) {
  auto setup = debian_setup();
  store<T>(setup.data() + at, value);
  return parse(setup);
}

TEST_CASE("a Debian kernel's header is read", "[firmware][bzimage]") {
  KernelHeader header;
  REQUIRE(parse_kernel(debian_setup(), kSetupSize, kKernelSize, header) == Failure::kNone);
  REQUIRE(header.header_end == 0x26c);
  REQUIRE(header.preferred_address == 0x1000000);
  REQUIRE(header.alignment == 0x200000);
  REQUIRE(header.init_size == 0x3378000);
  REQUIRE(header.initrd_max == 0x7fffffff);
  REQUIRE(header.command_line_max == 0x7ff);
  REQUIRE(header.relocatable);
}

TEST_CASE("what cannot be booted is refused with its reason", "[firmware][bzimage]") {
  KernelHeader header;
  REQUIRE(parse_kernel({}, 0, 0, header) == Failure::kNoKernel);
  REQUIRE(parse_kernel(debian_setup(), kSetupSize, 0, header) == Failure::kNoKernel);
  const auto setup = debian_setup();
  REQUIRE(parse_kernel(std::span(setup).first(0x200), kSetupSize, kKernelSize, header) == Failure::kNotBzImage);
  REQUIRE(parse_with<std::uint16_t>(0x1fe, 0) == Failure::kNotBzImage);
  REQUIRE(parse_with<std::uint32_t>(0x202, 0) == Failure::kNotBzImage);
  REQUIRE(parse_with<std::uint16_t>(0x206, 0x020b) == Failure::kKernelTooOld);
  REQUIRE(parse_with<std::uint8_t>(0x211, 0) == Failure::kNotBzImage);  // zImage
  REQUIRE(parse_with<std::uint16_t>(0x236, 0x7e) == Failure::kKernelNot64Bit);
  REQUIRE(parse_kernel(setup, kSetupSize - 1, kKernelSize, header) == Failure::kKernelTruncated);
  REQUIRE(parse_kernel(setup, kSetupSize, kKernelSize - 16, header) == Failure::kKernelTruncated);
  REQUIRE(parse_kernel(setup, kSetupSize, kKernelSize - 15, header) == Failure::kNone);  // last paragraph not full
  REQUIRE(parse_kernel(setup, kSetupSize + 512, kKernelSize, header) == Failure::kKernelHeader);
  REQUIRE(parse_with<std::uint32_t>(0x1f4, 0x10) == Failure::kKernelHeader);  // smaller than its entry
  REQUIRE(parse_with<std::uint8_t>(0x201, 0x10) == Failure::kKernelHeader);   // header without init_size
  REQUIRE(parse_with<std::uint8_t>(0x201, 0xff) == Failure::kKernelHeader);   // header into the e820 table
  REQUIRE(parse_with<std::uint32_t>(0x230, 0) == Failure::kKernelHeader);
  REQUIRE(parse_with<std::uint32_t>(0x230, 0x30000) == Failure::kKernelHeader);
  REQUIRE(parse_with<std::uint32_t>(0x260, 0x100000) == Failure::kKernelHeader);  // init_size below the file's
  REQUIRE(parse_with<std::uint64_t>(0x258, 0x8000) == Failure::kKernelHeader);    // over the firmware
  REQUIRE(parse_with<std::uint64_t>(0x258, ~0ull << 12) == Failure::kKernelHeader);
}

TEST_CASE("the kernel goes where it prefers, else where RAM is", "[firmware][bzimage]") {
  KernelHeader header;
  REQUIRE(parse_kernel(debian_setup(), kSetupSize, kKernelSize, header) == Failure::kNone);
  MemoryMap map;
  REQUIRE(map.set(0x100000, 0x10000000, MemoryType::kRam));
  std::uint64_t address = 0;
  REQUIRE(place_kernel(header, map, address) == Failure::kNone);
  REQUIRE(address == 0x1000000);

  REQUIRE(map.set(0x1800000, 0x1900001, MemoryType::kReserved));
  REQUIRE(place_kernel(header, map, address) == Failure::kNone);
  REQUIRE(address == 0x1a00000);
  header.relocatable = false;
  REQUIRE(place_kernel(header, map, address) == Failure::kNoMemory);

  MemoryMap small;
  REQUIRE(small.set(0x100000, 0x4000000, MemoryType::kRam));
  header.relocatable = true;
  REQUIRE(place_kernel(header, small, address) == Failure::kNoMemory);
}

TEST_CASE("boot_params carries header, map and addresses", "[firmware][bzimage]") {
  const auto setup = debian_setup();
  KernelHeader header;
  REQUIRE(parse_kernel(setup, kSetupSize, kKernelSize, header) == Failure::kNone);
  MemoryMap map;
  REQUIRE(map.set(0, 0x9f000, MemoryType::kRam));
  REQUIRE(map.set(0x100000, 0x20000000, MemoryType::kRam));
  std::vector<std::byte> params(kBootParamsBytes);
  fill_boot_params(
      std::span(params).first<kBootParamsBytes>(), setup, header,
      {.command_line = 0x2000, .initrd = 0x1f000000, .initrd_size = 12345, .rsdp = 0x9e000, .kernel = 0x1000000}, map);
  const auto* bytes = params.data();
  REQUIRE(load<std::uint64_t>(bytes + 0x070) == 0x9e000);
  REQUIRE(load<std::uint8_t>(bytes + 0x1e8) == 2);
  REQUIRE(load<std::uint8_t>(bytes + 0x1f1) == 0x27);
  REQUIRE(load<std::uint32_t>(bytes + 0x202) == 0x53726448);
  REQUIRE(load<std::uint8_t>(bytes + 0x210) == 0xff);
  REQUIRE(load<std::uint8_t>(bytes + 0x211) == 1);
  REQUIRE(load<std::uint32_t>(bytes + 0x214) == 0x1000000);
  REQUIRE(load<std::uint32_t>(bytes + 0x218) == 0x1f000000);
  REQUIRE(load<std::uint32_t>(bytes + 0x21c) == 12345);
  REQUIRE(load<std::uint32_t>(bytes + 0x228) == 0x2000);
  REQUIRE(load<std::uint64_t>(bytes + 0x250) == 0);
  REQUIRE(load<std::uint64_t>(bytes + 0x2d0) == 0);
  REQUIRE(load<std::uint64_t>(bytes + 0x2d8) == 0x9f000);
  REQUIRE(load<std::uint32_t>(bytes + 0x2e0) == 1);
  REQUIRE(load<std::uint64_t>(bytes + 0x2e4) == 0x100000);
  // Neither what stands before the header nor what stands behind it comes along.
  REQUIRE(load<std::uint8_t>(bytes + 0x1f0) == 0);
  REQUIRE(load<std::uint8_t>(bytes + 0x26c) == 0);
}

TEST_CASE("random headers are accepted only when they can be placed safely", "[firmware][bzimage]") {
  std::mt19937 random(3);  // NOLINT(cert-msc32-c,cert-msc51-cpp): the same bytes on every run
  MemoryMap map;
  REQUIRE(map.set(0x100000, 0xc0000000, MemoryType::kRam));
  for (int i = 0; i < 20000; ++i) {
    auto setup = debian_setup();
    for (int n = 0; n < 3; ++n) setup[0x1f1 + random() % 0x73] = static_cast<std::byte>(random());
    KernelHeader header;
    if (parse_kernel(setup, kSetupSize, kKernelSize, header) != Failure::kNone) continue;
    std::uint64_t address = 0;
    if (place_kernel(header, map, address) != Failure::kNone) continue;
    REQUIRE(address >= 0x100000);
    REQUIRE(address + header.init_size <= 0xc0000000);
    REQUIRE(kKernelSize <= header.init_size);
    std::vector<std::byte> params(kBootParamsBytes);
    fill_boot_params(std::span(params).first<kBootParamsBytes>(), setup, header, {.kernel = address}, map);
  }
}
}  // namespace
