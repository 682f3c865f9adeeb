// Setup headers made here by the offsets of Linux Documentation/arch/x86/boot.rst.
#include <catch2/catch.hpp>
#include <string>
#include <vector>

#include "base/bytes.hpp"
#include "base/error.hpp"
#include "vmm/boot/bzimage.hpp"
#include "vmm/boot/kernel_image.hpp"

using namespace sevisor;
using namespace sevisor::vmm;

namespace {

constexpr std::uint64_t kMiB = 1 << 20;

std::vector<std::byte> good_image() {
  std::vector<std::byte> image(4 * 512 + 0x10000);
  std::byte* header = image.data();
  store(header + 0x1f1, std::uint8_t{3});        // setup sectors
  store(header + 0x1f4, std::uint32_t{0x1000});  // 64 KiB of kernel
  store(header + 0x1fe, std::uint16_t{0xaa55});
  store(header + 0x202, std::uint32_t{0x53726448});
  store(header + 0x206, std::uint16_t{0x020f});
  store(header + 0x211, std::uint8_t{1});
  store(header + 0x22c, std::uint32_t{0x7fffffff});
  store(header + 0x236, std::uint16_t{0x7f});
  store(header + 0x238, std::uint32_t{2047});
  store(header + 0x258, std::uint64_t{16 * kMiB});
  store(header + 0x260, static_cast<std::uint32_t>(48 * kMiB));
  return image;
}

std::string refusal_of(const std::vector<std::byte>& image) {
  try {
    (void)parse_bzimage(image, "vmlinuz");
  } catch (const Error& error) {
    CHECK(error.exit_code() == ExitCode::kBadUsage);
    CHECK(error.tried().find("vmlinuz") != std::string::npos);
    return error.came_back();
  }
  return {};
}

template <class T>
std::vector<std::byte> with(std::size_t offset, T value) {
  std::vector<std::byte> image = good_image();
  store(image.data() + offset, value);
  return image;
}

}  // namespace

TEST_CASE("a bzImage's header is read") {
  const KernelImage kernel = parse_bzimage(good_image(), "vmlinuz");
  CHECK(kernel.setup_size == 4 * 512);
  CHECK(kernel.load_address == 16 * kMiB);
  CHECK(kernel.init_size == 48 * kMiB);
  CHECK(kernel.initrd_max == 0x7fffffff);
  CHECK(kernel.command_line_max == 2047);
}

TEST_CASE("no setup sectors means four, for old times' sake") {
  std::vector<std::byte> image = with(0x1f1, std::uint8_t{0});
  image.resize(5 * 512 + 0x10000);
  CHECK(parse_bzimage(image, "vmlinuz").setup_size == 5 * 512);
}

TEST_CASE("what is no bzImage, or not a whole one, is refused") {
  CHECK(refusal_of({}).find("neither a bzImage nor an ELF") != std::string::npos);
  CHECK(refusal_of(std::vector<std::byte>(0x263)).find("neither a bzImage nor an ELF") != std::string::npos);
  CHECK(refusal_of(std::vector<std::byte>(65536)).find("magic") != std::string::npos);
  CHECK(refusal_of(with(0x1fe, std::uint16_t{0})).find("magic") != std::string::npos);
  CHECK(refusal_of(with(0x206, std::uint16_t{0x020b})).find("2.11") != std::string::npos);
  CHECK(refusal_of(with(0x211, std::uint8_t{0})).find("zImage") != std::string::npos);
  CHECK(refusal_of(with(0x236, std::uint16_t{0x7e})).find("64-bit") != std::string::npos);
  CHECK(refusal_of(with(0x1f4, std::uint32_t{0x1001})).find("truncated") != std::string::npos);
  CHECK(refusal_of(with(0x1f4, std::uint32_t{0xffffffff})).find("truncated") != std::string::npos);
  CHECK(refusal_of(with(0x1f1, std::uint8_t{0xff})).find("truncated") != std::string::npos);
  std::vector<std::byte> cut = good_image();
  cut.resize(3000);
  CHECK(refusal_of(cut).find("truncated") != std::string::npos);
}

TEST_CASE("kernel, initrd and command line must fit") {
  const KernelImage kernel = parse_bzimage(good_image(), "vmlinuz");
  CHECK_NOTHROW(check_boot_fits(kernel, 0, 2047, 64 * kMiB));
  CHECK_THROWS_AS(check_boot_fits(kernel, 0, 2048, 64 * kMiB), Error);
  CHECK_THROWS_AS(check_boot_fits(kernel, 0, 0, 63 * kMiB), Error);
  CHECK_NOTHROW(check_boot_fits(kernel, 8 * kMiB, 0, 72 * kMiB));
  CHECK_THROWS_AS(check_boot_fits(kernel, 8 * kMiB + 1, 0, 72 * kMiB), Error);
  CHECK_THROWS_AS(check_boot_fits(kernel, ~std::size_t{0}, 0, 3072 * kMiB), Error);
  CHECK_THROWS_AS(check_boot_fits(kernel, 2100 * kMiB, 0, 3072 * kMiB), Error);  // above initrd_max

  const KernelImage wild = parse_bzimage(with(0x258, ~std::uint64_t{0} - 4096), "vmlinuz");
  CHECK_THROWS_AS(check_boot_fits(wild, 0, 0, 3072 * kMiB), Error);
}
