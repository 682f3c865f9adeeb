#include "firmware/fw_cfg.hpp"

#include "base/bytes.hpp"
#include "firmware/cpu.hpp"
#include "firmware/layout.h"

namespace sevisor::firmware {

namespace {
constexpr std::uint16_t kSelectorPort = 0x510;
constexpr std::uint16_t kDataPort = 0x511;
constexpr std::uint16_t kDmaHighPort = 0x514;
constexpr std::uint16_t kDmaLowPort = 0x518;
constexpr std::uint32_t kIdDma = 1 << 1;

constexpr std::uint32_t kDmaError = 1 << 0;
constexpr std::uint32_t kDmaRead = 1 << 1;
constexpr std::uint32_t kDmaSelect = 1 << 3;
constexpr unsigned kDmaKeyShift = 16;
constexpr int kDmaPollLimit = 1 << 20;  // devices finish before the port write does; give others a while

// FWCfgDmaAccess, big-endian, at the start of the bounce buffer; the data follows on the next page.
constexpr std::uint64_t kAccess = FW_BOUNCE;
constexpr std::uint64_t kAccessLength = FW_BOUNCE + 4;
constexpr std::uint64_t kAccessAddress = FW_BOUNCE + 8;
constexpr std::uint64_t kData = FW_BOUNCE + kPageSize;
constexpr std::size_t kDataBytes = FW_BOUNCE_SIZE - kPageSize;

constexpr std::size_t kDirectoryEntryBytes = 64;  // size u32, key u16, reserved u16, name 56, big-endian
constexpr std::size_t kNameOffset = 8;
constexpr std::size_t kNameBytes = 56;
constexpr std::uint32_t kMaxFiles = 512;
constexpr std::uint32_t kEntriesAtOnce = 32;

std::uint32_t read_control() noexcept { return swap_bytes(*reinterpret_cast<const volatile std::uint32_t*>(kAccess)); }
}  // namespace

std::optional<FwCfg> FwCfg::open() noexcept {
  FwCfg by_port(false);
  std::byte signature[4];
  if (!by_port.read(FwCfgKey::kSignature, signature)) return std::nullopt;
  if (std::string_view(reinterpret_cast<const char*>(signature), sizeof signature) != "QEMU") return std::nullopt;
  const auto id = by_port.read32(FwCfgKey::kId);
  if (!id) return std::nullopt;
  return FwCfg((*id & kIdDma) != 0);
}

bool FwCfg::transfer(std::uint32_t control, std::uint32_t length) noexcept {
  store<std::uint32_t>(reinterpret_cast<void*>(kAccess), swap_bytes(control));
  store<std::uint32_t>(reinterpret_cast<void*>(kAccessLength), swap_bytes(length));
  store<std::uint64_t>(reinterpret_cast<void*>(kAccessAddress), swap_bytes(kData));
  out32(kDmaHighPort, 0);
  out32(kDmaLowPort, swap_bytes(static_cast<std::uint32_t>(kAccess)));
  for (int i = 0; i < kDmaPollLimit; ++i) {
    const std::uint32_t state = read_control();
    if (state == 0) return true;
    if ((state & kDmaError) != 0) return false;
    pause();
  }
  return false;
}

bool FwCfg::read_on(std::uint32_t first_control, std::span<std::byte> to) noexcept {
  if (!dma_) {
    in8_string(kDataPort, to.data(), to.size());
    return true;
  }
  std::uint32_t control = first_control;
  while (!to.empty()) {
    const std::size_t chunk = to.size() < kDataBytes ? to.size() : kDataBytes;
    if (!transfer(control, static_cast<std::uint32_t>(chunk))) return false;
    __builtin_memcpy(to.data(), reinterpret_cast<const void*>(kData), chunk);
    to = to.subspan(chunk);
    control = kDmaRead;
  }
  return true;
}

bool FwCfg::continue_reading(std::span<std::byte> to) noexcept { return read_on(kDmaRead, to); }

bool FwCfg::read(std::uint16_t key, std::span<std::byte> to) noexcept {
  if (!dma_) out16(kSelectorPort, key);
  return read_on(std::uint32_t{key} << kDmaKeyShift | kDmaSelect | kDmaRead, to);
}

std::optional<std::uint32_t> FwCfg::read32(FwCfgKey key) noexcept {
  std::byte bytes[4];
  if (!read(key, bytes)) return std::nullopt;
  return load<std::uint32_t>(bytes);
}

std::optional<FwCfgFile> FwCfg::find(std::string_view name) noexcept {
  std::byte head[4];
  if (!read(FwCfgKey::kFileDirectory, head)) return std::nullopt;
  const std::uint32_t count = swap_bytes(load<std::uint32_t>(head));
  if (count > kMaxFiles) return std::nullopt;
  std::byte entries[kEntriesAtOnce * kDirectoryEntryBytes];
  for (std::uint32_t i = 0; i < count; ++i) {
    if (i % kEntriesAtOnce == 0) {
      const std::uint32_t left = count - i < kEntriesAtOnce ? count - i : kEntriesAtOnce;
      if (!continue_reading(std::span(entries).first(left * kDirectoryEntryBytes))) return std::nullopt;
    }
    const std::byte* entry = entries + i % kEntriesAtOnce * kDirectoryEntryBytes;
    const auto* text = reinterpret_cast<const char*>(entry + kNameOffset);
    std::size_t length = 0;
    while (length < kNameBytes && text[length] != 0) ++length;
    if (std::string_view(text, length) == name) {
      return FwCfgFile{.size = swap_bytes(load<std::uint32_t>(entry)),
                       .key = swap_bytes(load<std::uint16_t>(entry + 4))};
    }
  }
  return std::nullopt;
}

}  // namespace sevisor::firmware
