#include "firmware/pvh.hpp"

#include "base/bytes.hpp"

namespace sevisor::firmware {

namespace {
constexpr std::uint32_t kMagicValue = 0x336ec578;  // "xEn3" with the first bit set
constexpr std::uint32_t kVersionValue = 1;         // has the memory map

constexpr std::size_t kMagic = 0;
constexpr std::size_t kVersion = 4;
constexpr std::size_t kModuleCount = 12;
constexpr std::size_t kModules = 16;
constexpr std::size_t kCommandLine = 24;
constexpr std::size_t kRsdp = 32;
constexpr std::size_t kMemoryMap = 40;
constexpr std::size_t kMemoryMapCount = 48;
constexpr std::size_t kInfoBytes = 56;
constexpr std::size_t kModuleBytes = 32;  // u64 address, size, command line, reserved
constexpr std::size_t kRangeBytes = 24;   // u64 address, size, u32 type, reserved
static_assert(kInfoBytes + kModuleBytes + MemoryMap::kCapacity * kRangeBytes <= kStartInfoBytes);
}  // namespace

void fill_start_info(std::span<std::byte, kStartInfoBytes> info, std::uint64_t address, const BootRequest& request,
                     const MemoryMap& map) noexcept {
  std::byte* bytes = info.data();
  store<std::uint32_t>(bytes + kMagic, kMagicValue);
  store<std::uint32_t>(bytes + kVersion, kVersionValue);
  store<std::uint64_t>(bytes + kCommandLine, request.command_line);
  store<std::uint64_t>(bytes + kRsdp, request.rsdp);
  if (request.initrd_size != 0) {
    store<std::uint32_t>(bytes + kModuleCount, 1);
    store<std::uint64_t>(bytes + kModules, address + kInfoBytes);
    store<std::uint64_t>(bytes + kInfoBytes, request.initrd);
    store<std::uint64_t>(bytes + kInfoBytes + 8, request.initrd_size);
  }
  std::size_t at = kInfoBytes + kModuleBytes;
  store<std::uint64_t>(bytes + kMemoryMap, address + at);
  store<std::uint32_t>(bytes + kMemoryMapCount, static_cast<std::uint32_t>(map.ranges().size()));
  for (const MemoryRange& range : map.ranges()) {
    store<std::uint64_t>(bytes + at, range.begin);
    store<std::uint64_t>(bytes + at + 8, range.end - range.begin);
    store<std::uint32_t>(bytes + at + 16, static_cast<std::uint32_t>(range.type));
    at += kRangeBytes;
  }
}

}  // namespace sevisor::firmware
