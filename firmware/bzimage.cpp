#include "firmware/bzimage.hpp"

#include "base/bytes.hpp"

namespace sevisor::firmware {

namespace {
// Offsets into the setup part, and into boot_params where the header is copied to the same place (boot.rst, "Details of
// Header Fields").
constexpr std::size_t kSetupSects = 0x1f1;
constexpr std::size_t kSysSize = 0x1f4;
constexpr std::size_t kBootFlag = 0x1fe;
constexpr std::size_t kJump = 0x200;  // second byte: distance from 0x202 to the header's end
constexpr std::size_t kMagic = 0x202;
constexpr std::size_t kVersion = 0x206;
constexpr std::size_t kTypeOfLoader = 0x210;
constexpr std::size_t kLoadFlags = 0x211;
constexpr std::size_t kCode32Start = 0x214;
constexpr std::size_t kRamdiskImage = 0x218;
constexpr std::size_t kRamdiskSize = 0x21c;
constexpr std::size_t kCmdLinePtr = 0x228;
constexpr std::size_t kInitrdAddrMax = 0x22c;
constexpr std::size_t kKernelAlignment = 0x230;
constexpr std::size_t kRelocatable = 0x234;
constexpr std::size_t kXLoadFlags = 0x236;
constexpr std::size_t kCmdlineSize = 0x238;
constexpr std::size_t kSetupData = 0x250;
constexpr std::size_t kPrefAddress = 0x258;
constexpr std::size_t kInitSize = 0x260;
constexpr std::size_t kHeaderNeeded = 0x264;

// Fields of boot_params alone (zero-page.rst).
constexpr std::size_t kAcpiRsdpAddr = 0x070;
constexpr std::size_t kE820Entries = 0x1e8;
constexpr std::size_t kE820Table = 0x2d0;
constexpr std::size_t kE820EntryBytes = 20;
static_assert(kE820Table + MemoryMap::kCapacity * kE820EntryBytes <= kBootParamsBytes);

constexpr std::uint16_t kBootFlagValue = 0xaa55;
constexpr std::uint32_t kMagicValue = 0x53726448;  // "HdrS"
constexpr std::uint16_t kMinVersion = 0x020c;      // xloadflags
constexpr std::uint8_t kLoadedHigh = 1 << 0;
constexpr std::uint8_t kQuiet = 1 << 5;
constexpr std::uint16_t kXlfKernel64 = 1 << 0;
constexpr std::uint8_t kLoaderUndefined = 0xff;
constexpr std::uint64_t kSector = 512;
constexpr std::uint64_t kParagraph = 16;
constexpr std::uint64_t kMiB = 1 << 20;
constexpr std::uint64_t kLowLimit = 0xc0000000;  // everything is placed below 3 GiB
}  // namespace

Failure parse_kernel(std::span<const std::byte> setup, std::uint64_t setup_size, std::uint64_t kernel_size,
                     KernelHeader& header) noexcept {
  if (setup_size == 0 || kernel_size == 0) return Failure::kNoKernel;
  if (setup.size() < kHeaderNeeded) return Failure::kNotBzImage;
  const std::byte* bytes = setup.data();
  if (load<std::uint16_t>(bytes + kBootFlag) != kBootFlagValue || load<std::uint32_t>(bytes + kMagic) != kMagicValue) {
    return Failure::kNotBzImage;
  }
  if (load<std::uint16_t>(bytes + kVersion) < kMinVersion) return Failure::kKernelTooOld;
  if ((load<std::uint8_t>(bytes + kLoadFlags) & kLoadedHigh) == 0) return Failure::kNotBzImage;
  if ((load<std::uint16_t>(bytes + kXLoadFlags) & kXlfKernel64) == 0) return Failure::kKernelNot64Bit;

  header.header_end = static_cast<std::uint32_t>(kMagic + load<std::uint8_t>(bytes + kJump + 1));
  header.preferred_address = load<std::uint64_t>(bytes + kPrefAddress);
  header.alignment = load<std::uint32_t>(bytes + kKernelAlignment);
  header.init_size = load<std::uint32_t>(bytes + kInitSize);
  header.initrd_max = load<std::uint32_t>(bytes + kInitrdAddrMax);
  header.command_line_max = load<std::uint32_t>(bytes + kCmdlineSize);
  header.relocatable = load<std::uint8_t>(bytes + kRelocatable) != 0;

  const auto sectors = load<std::uint8_t>(bytes + kSetupSects);
  const std::uint64_t setup_bytes = (std::uint64_t{sectors == 0 ? std::uint8_t{4} : sectors} + 1) * kSector;
  const std::uint64_t kernel_bytes = load<std::uint32_t>(bytes + kSysSize) * kParagraph;
  // syssize counts paragraphs, the last of which the file may not fill.
  if (setup_size < setup_bytes || kernel_size + kParagraph <= kernel_bytes) return Failure::kKernelTruncated;
  if (setup_size != setup_bytes || kernel_bytes <= kEntry64Offset || kernel_size <= kEntry64Offset) {
    return Failure::kKernelHeader;
  }
  if (header.header_end < kHeaderNeeded || header.header_end > kSetupHeaderEndMax || header.header_end > setup.size()) {
    return Failure::kKernelHeader;
  }
  const bool power_of_two = (header.alignment & (header.alignment - 1)) == 0;
  if (header.alignment < kPageSize || !power_of_two) return Failure::kKernelHeader;
  // Both are below 2^33 now, so nothing wraps later.
  if (kernel_size > header.init_size || header.preferred_address >= kLowLimit) return Failure::kKernelHeader;
  if (header.preferred_address < kMiB || header.preferred_address % kPageSize != 0) return Failure::kKernelHeader;
  return Failure::kNone;
}

void make_setup_header(std::span<std::byte, kBootParamsBytes> setup, std::uint32_t command_line_max,
                       KernelHeader& header) noexcept {
  std::byte* bytes = setup.data();
  store<std::uint16_t>(bytes + kBootFlag, kBootFlagValue);
  store<std::uint32_t>(bytes + kMagic, kMagicValue);
  store<std::uint16_t>(bytes + kVersion, kMinVersion);
  store<std::uint8_t>(bytes + kLoadFlags, kLoadedHigh);
  store<std::uint32_t>(bytes + kCmdlineSize, command_line_max);
  header = {.header_end = kHeaderNeeded, .initrd_max = kLowLimit - 1, .command_line_max = command_line_max};
}

Failure place_kernel(const KernelHeader& header, const MemoryMap& map, std::uint64_t& address) noexcept {
  const std::uint64_t end = header.preferred_address + header.init_size;
  if (end <= kLowLimit && map.is_ram(header.preferred_address, end)) {
    address = header.preferred_address;
    return Failure::kNone;
  }
  if (!header.relocatable) return Failure::kNoMemory;
  // Below pref_address the kernel would move itself up to it.
  const auto place = map.find_bottom(header.init_size, header.alignment, header.preferred_address, kLowLimit);
  if (!place) return Failure::kNoMemory;
  address = *place;
  return Failure::kNone;
}

void fill_boot_params(std::span<std::byte, kBootParamsBytes> params, std::span<const std::byte> setup,
                      const KernelHeader& header, const BootRequest& request, const MemoryMap& map) noexcept {
  std::byte* bytes = params.data();
  for (std::size_t i = kSetupHeaderOffset; i < header.header_end; ++i) bytes[i] = setup[i];
  store<std::uint8_t>(bytes + kTypeOfLoader, kLoaderUndefined);
  const auto flags = load<std::uint8_t>(bytes + kLoadFlags);
  // The heap is the real-mode code's, which does not run; KEEP_SEGMENTS is obsolete.
  store<std::uint8_t>(bytes + kLoadFlags, static_cast<std::uint8_t>(flags & (kLoadedHigh | kQuiet)));
  store<std::uint32_t>(bytes + kCode32Start, static_cast<std::uint32_t>(request.kernel));
  store<std::uint32_t>(bytes + kRamdiskImage, static_cast<std::uint32_t>(request.initrd));
  store<std::uint32_t>(bytes + kRamdiskSize, static_cast<std::uint32_t>(request.initrd_size));
  store<std::uint32_t>(bytes + kCmdLinePtr, static_cast<std::uint32_t>(request.command_line));
  store<std::uint64_t>(bytes + kSetupData, request.setup_data);
  store<std::uint64_t>(bytes + kAcpiRsdpAddr, request.rsdp);

  std::size_t at = kE820Table;
  for (const MemoryRange& range : map.ranges()) {
    store<std::uint64_t>(bytes + at, range.begin);
    store<std::uint64_t>(bytes + at + 8, range.end - range.begin);
    store<std::uint32_t>(bytes + at + 16, static_cast<std::uint32_t>(range.type));
    at += kE820EntryBytes;
  }
  store<std::uint8_t>(bytes + kE820Entries, static_cast<std::uint8_t>(map.ranges().size()));
}

}  // namespace sevisor::firmware
