#include "vmm/boot/file_kind.hpp"

#include <algorithm>
#include <cstdint>
#include <fmt/format.h>
#include <string_view>
#include <vector>

#include "base/bytes.hpp"

namespace sevisor::vmm {

namespace {

using namespace std::string_view_literals;

// PE format (Microsoft): offsets in the file and from the signature on.
constexpr std::size_t kSignatureOffset = 0x3c;
constexpr std::size_t kSections = 6;
constexpr std::size_t kOptionalSize = 20;
constexpr std::size_t kHeaderSize = 24;
constexpr std::size_t kSectionSize = 40;
constexpr std::size_t kSectionName = 8;
constexpr std::size_t kMaxSections = 96;

std::string_view text_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// Where the signature "PE\0\0" is; nothing if it is no such file.
std::optional<std::size_t> find_pe(std::span<const std::byte> image) {
  if (image.size() < kSignatureOffset + 4 || !text_of(image).starts_with("MZ")) return std::nullopt;
  const std::size_t at = load<std::uint32_t>(image.data() + kSignatureOffset);
  if (at > image.size() || image.size() - at < kHeaderSize) return std::nullopt;
  return text_of(image.subspan(at)).starts_with("PE\0\0"sv) ? std::optional(at) : std::nullopt;
}

std::vector<std::string> section_names(std::span<const std::byte> image, std::size_t pe) {
  const std::size_t count = std::min<std::size_t>(load<std::uint16_t>(image.data() + pe + kSections), kMaxSections);
  std::size_t at = pe + kHeaderSize + load<std::uint16_t>(image.data() + pe + kOptionalSize);
  std::vector<std::string> names;
  for (std::size_t i = 0; i < count && at <= image.size() && image.size() - at >= kSectionSize;
       ++i, at += kSectionSize) {
    const std::string_view name = text_of(image.subspan(at, kSectionName));
    names.emplace_back(name.substr(0, name.find('\0')));
  }
  return names;
}

FileKind kind_of_pe(std::span<const std::byte> image, std::size_t pe) {
  const std::vector<std::string> names = section_names(image, pe);
  if (std::ranges::find(names, ".linux") == names.end()) {
    return {"it is an EFI application (PE), which only UEFI firmware starts",
            "Give such firmware with --firmware, as OVMF, or another kernel."};
  }
  std::vector<std::string_view> parts;
  for (const std::string_view part : {".linux"sv, ".initrd"sv, ".cmdline"sv}) {
    if (std::ranges::find(names, part) != names.end()) parts.push_back(part);
  }
  return {
      fmt::format("it is an EFI unified kernel image (PE with {}), which only UEFI firmware starts",
                  fmt::join(parts, ", ")),
      "Give such firmware with --firmware, as OVMF, or take the parts out and give them with --kernel, --initrd and "
      "--append: objcopy -O binary --only-section=.linux --set-section-flags .linux=alloc FILE vmlinuz."};
}

struct Magic {
  std::size_t offset;
  std::string_view bytes;
  std::string_view is;
  std::string_view advice;
};
constexpr std::string_view kUnpack = "Unpack it first, and give what is in it if that is a kernel.";
constexpr std::string_view kOther = "Give a bzImage, such as /boot/vmlinuz-* of a Linux distribution, or a vmlinux.";
constexpr Magic kMagics[] = {
    {0, "\x1f\x8b"sv, "it is a gzip stream", kUnpack},
    {0, "\xfd\x37zXZ\0"sv, "it is an xz stream", kUnpack},
    {0, "\x28\xb5\x2f\xfd"sv, "it is a zstd frame", kUnpack},
    {0, "BZh"sv, "it is a bzip2 stream", kUnpack},
    {0, "\x02\x21\x4c\x18"sv, "it is an LZ4 stream", kUnpack},
    {0, "\x04\x22\x4d\x18"sv, "it is an LZ4 frame", kUnpack},
    {0, "070701"sv, "it is a cpio archive", "Give it with --initrd if it is one, and a kernel with --kernel."},
    {0, "070702"sv, "it is a cpio archive", "Give it with --initrd if it is one, and a kernel with --kernel."},
    {0, "!<arch>\ndebian-binary"sv, "it is a Debian package", "Unpack it (dpkg-deb -x), and give its boot/vmlinuz-*."},
    {0, "\xed\xab\xee\xdb"sv, "it is an RPM package", "Unpack it (rpm2cpio), and give its vmlinuz."},
    {0, "PK\x03\x04"sv, "it is a zip archive", kUnpack},
    {257, "ustar"sv, "it is a tar archive", kUnpack},
    {0, "QFI\xfb"sv, "it is a qcow2 disk image", kOther},
    {512, "EFI PART"sv, "it is a disk image (GPT)", kOther},
    {0x8001, "CD001"sv, "it is an ISO 9660 image", kOther},
    {0x38, "ARM\x64"sv, "it is a kernel for arm64", "Give one for x86-64."},
    {0x38, "RISCV"sv, "it is a kernel for RISC-V", "Give one for x86-64."},
    {0, "#!"sv, "it is a script", kOther},
};

bool has_bzimage_header(std::span<const std::byte> image) {
  return text_of(image).substr(std::min<std::size_t>(image.size(), 0x202)).starts_with("HdrS");
}

}  // namespace

bool is_pe(std::span<const std::byte> image) { return find_pe(image).has_value(); }

std::optional<FileKind> kind_of_no_kernel(std::span<const std::byte> image) {
  if (has_bzimage_header(image)) return std::nullopt;
  for (const Magic& magic : kMagics) {
    if (image.size() > magic.offset && text_of(image.subspan(magic.offset)).starts_with(magic.bytes)) {
      return FileKind{std::string(magic.is), std::string(magic.advice)};
    }
  }
  if (const auto pe = find_pe(image)) return kind_of_pe(image, *pe);
  return std::nullopt;
}

}  // namespace sevisor::vmm
