// Files that people give as a kernel and that are none: what they are is said, and what to do.
#include "vmm/boot/file_kind.hpp"

#include <catch2/catch.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.hpp"
#include "base/error.hpp"
#include "vmm/boot/kernel_image.hpp"

using namespace sevisor;
using namespace sevisor::vmm;
using Catch::Matchers::Contains;

namespace {

using Bytes = std::vector<std::byte>;

Bytes with(std::size_t offset, std::string_view text, std::size_t size = 40'000) {
  Bytes bytes(size);
  for (std::size_t i = 0; i < text.size(); ++i) bytes[offset + i] = static_cast<std::byte>(text[i]);
  return bytes;
}

// A PE executable with these sections.
Bytes pe(std::initializer_list<std::string_view> sections) {
  Bytes bytes = with(0, "MZ");
  store(bytes.data() + 0x3c, std::uint32_t{0x80});
  store(bytes.data() + 0x80, std::uint32_t{0x4550});
  store(bytes.data() + 0x86, static_cast<std::uint16_t>(sections.size()));
  store(bytes.data() + 0x94, std::uint16_t{0xf0});
  std::size_t at = 0x80 + 24 + 0xf0;
  for (const std::string_view name : sections) {
    for (std::size_t i = 0; i < name.size(); ++i) bytes[at + i] = static_cast<std::byte>(name[i]);
    at += 40;
  }
  return bytes;
}

std::string refusal_of(const Bytes& image, BootedBy firmware = BootedBy::kOwnFirmware) {
  try {
    (void)parse_kernel_image(image, "the file", firmware);
  } catch (const Error& error) {
    CHECK(error.exit_code() == ExitCode::kBadUsage);
    return error.what();
  }
  return {};
}

}  // namespace

TEST_CASE("a unified kernel image is named as one, with what to do") {
  const Bytes image = pe({".text", ".osrel", ".cmdline", ".initrd", ".linux"});
  CHECK_THAT(refusal_of(image), Contains("EFI unified kernel image (PE with .linux, .initrd, .cmdline)") &&
                                    Contains("--firmware") && Contains("objcopy"));
  CHECK_THAT(refusal_of(pe({".text", ".linux"})), Contains("(PE with .linux)"));
  CHECK_THAT(refusal_of(pe({".text", ".data"})), Contains("EFI application"));
  CHECK_THAT(refusal_of(pe({})), Contains("EFI application"));
}

TEST_CASE("UEFI firmware is handed any PE executable, and nothing else than before") {
  for (const Bytes& image : {pe({".text", ".linux"}), pe({".text"})}) {
    const KernelImage kernel = parse_kernel_image(image, "uki.efi", BootedBy::kOther);
    CHECK(kernel.setup_size > 0);
    CHECK(kernel.setup_size < image.size());
    CHECK_NOTHROW(check_boot_fits(kernel, 10'000'000, 4000, 512 << 20));
  }
  CHECK_THAT(refusal_of(with(0, "\x1f\x8b"), BootedBy::kOther), Contains("gzip"));
  CHECK_THAT(refusal_of(Bytes(40'000), BootedBy::kOther), Contains("neither a bzImage nor an ELF file"));
}

TEST_CASE("a bzImage with an EFI stub is a bzImage, for whatever firmware") {
  Bytes image = pe({".setup", ".text"});
  store(image.data() + 0x1fe, std::uint16_t{0xaa55});
  store(image.data() + 0x202, std::uint32_t{0x53726448});
  store(image.data() + 0x206, std::uint16_t{0x0100});
  for (const BootedBy firmware : {BootedBy::kOwnFirmware, BootedBy::kOther}) {
    CHECK_THAT(refusal_of(image, firmware), Contains("boot protocol is 1.0"));
  }
}

TEST_CASE("other files are told by their first bytes") {
  const struct {
    Bytes file;
    const char* is;
  } files[] = {
      {with(0, "\x1f\x8b"), "gzip"},
      {with(0, std::string_view("\xfd\x37zXZ\0", 6)), "xz"},
      {with(0, "\x28\xb5\x2f\xfd"), "zstd"},
      {with(0, "070701"), "cpio"},
      {with(0, "!<arch>\ndebian-binary"), "Debian package"},
      {with(257, "ustar"), "tar"},
      {with(0, "QFI\xfb"), "qcow2"},
      {with(512, "EFI PART"), "GPT"},
      {with(0x8001, "CD001"), "ISO 9660"},
      {with(0x38, "ARM\x64"), "arm64"},
      {with(0, "#!/bin/sh"), "script"},
  };
  for (const auto& file : files) {
    CAPTURE(file.is);
    CHECK(kind_of_no_kernel(file.file));
    CHECK_THAT(refusal_of(file.file), Contains(file.is));
  }
  CHECK_FALSE(kind_of_no_kernel(with(0,
                                     "\x7f"
                                     "ELF")));
  CHECK_FALSE(kind_of_no_kernel({}));
  // Whatever a header says, nothing behind the end is read.
  for (std::size_t size = 0; size < 600; ++size) {
    Bytes image = pe({".text", ".linux"});
    image.resize(size);
    (void)kind_of_no_kernel(image);
  }
  Bytes far = pe({".text"});
  store(far.data() + 0x3c, std::uint32_t{0xfffffff0});
  CHECK_FALSE(is_pe(far));
}
