#include "vmm/boot/bzimage.hpp"

#include <fmt/format.h>

#include "base/bytes.hpp"
#include "base/error.hpp"
#include "vmm/boot/file_kind.hpp"

namespace sevisor::vmm {

namespace {

// Offsets in the setup header (boot.rst, "Details of header fields").
constexpr std::size_t kSetupSects = 0x1f1;        // u8
constexpr std::size_t kSysSize = 0x1f4;           // u32, units of 16 bytes
constexpr std::size_t kBootFlag = 0x1fe;          // u16
constexpr std::size_t kHeaderMagic = 0x202;       // "HdrS"
constexpr std::size_t kVersion = 0x206;           // u16
constexpr std::size_t kLoadFlags = 0x211;         // u8
constexpr std::size_t kInitrdAddressMax = 0x22c;  // u32
constexpr std::size_t kXLoadFlags = 0x236;        // u16
constexpr std::size_t kCommandLineSize = 0x238;   // u32
constexpr std::size_t kPrefAddress = 0x258;       // u64
constexpr std::size_t kInitSize = 0x260;          // u32
constexpr std::size_t kHeaderEnd = 0x264;

constexpr std::uint16_t kBootFlagValue = 0xaa55;
constexpr std::uint32_t kHeaderMagicValue = 0x53726448;  // "HdrS"
constexpr std::uint16_t kLeastVersion = 0x020c;          // the first with xloadflags
constexpr std::uint8_t kLoadedHigh = 1;
constexpr std::uint16_t kKernel64 = 1;  // XLF_KERNEL_64: has the 64-bit entry
constexpr std::size_t kSectorSize = 512;
constexpr unsigned kDefaultSetupSects = 4;
constexpr std::size_t kSysSizeUnit = 16;

}  // namespace

KernelImage parse_bzimage(std::span<const std::byte> image, std::string_view name) {
  const auto refuse = [name](std::string came_back) {
    throw Error(ExitCode::kBadUsage, fmt::format("use the kernel '{}'", name), std::move(came_back),
                "Give a kernel for x86-64 with --kernel, such as /boot/vmlinuz-* of a Linux distribution.");
  };
  if (image.size() < kHeaderEnd) {
    refuse(fmt::format("it is neither a bzImage nor an ELF file: its {} bytes cannot hold the setup header",
                       image.size()));
  }
  const std::byte* header = image.data();
  if (load<std::uint16_t>(header + kBootFlag) != kBootFlagValue ||
      load<std::uint32_t>(header + kHeaderMagic) != kHeaderMagicValue) {
    if (const auto kind = kind_of_no_kernel(image)) {
      throw Error(ExitCode::kBadUsage, fmt::format("use the kernel '{}'", name), kind->is, kind->advice);
    }
    refuse("it is neither a bzImage nor an ELF file: the setup header's magic numbers are not there");
  }
  const auto version = load<std::uint16_t>(header + kVersion);
  if (version < kLeastVersion) {
    refuse(fmt::format("its boot protocol is {}.{}, too old: 2.12 at least is needed", version >> 8, version & 0xff));
  }
  if (!(load<std::uint8_t>(header + kLoadFlags) & kLoadedHigh)) refuse("it is a zImage, which loads into low memory");
  if (!(load<std::uint16_t>(header + kXLoadFlags) & kKernel64)) refuse("it has no 64-bit entry");

  const unsigned setup_sects = load<std::uint8_t>(header + kSetupSects);
  KernelImage kernel;
  kernel.setup_size = ((setup_sects != 0 ? setup_sects : kDefaultSetupSects) + 1) * kSectorSize;
  const std::uint64_t needed = kernel.setup_size + load<std::uint32_t>(header + kSysSize) * std::uint64_t{kSysSizeUnit};
  if (image.size() + kSysSizeUnit <= needed || image.size() <= kernel.setup_size) {
    refuse(fmt::format("it is truncated: the file has {} bytes, its header says {}", image.size(), needed));
  }
  kernel.load_address = load<std::uint64_t>(header + kPrefAddress);
  kernel.init_size = load<std::uint32_t>(header + kInitSize);
  kernel.initrd_max = load<std::uint32_t>(header + kInitrdAddressMax);
  kernel.command_line_max = load<std::uint32_t>(header + kCommandLineSize);
  return kernel;
}

}  // namespace sevisor::vmm
