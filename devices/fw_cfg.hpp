// QEMU's firmware configuration device: items that the firmware selects by key and reads (QEMU docs/specs/fw_cfg.rst).
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/address.hpp"
#include "devices/bus.hpp"
#include "devices/guest_dma.hpp"

namespace sevisor::devices {

inline constexpr std::uint64_t kFwCfgPort = 0x510;

// Keys with a fixed meaning (QEMU include/standard-headers/linux/qemu_fw_cfg.h). Integers are little-endian.
enum class FwCfgKey : std::uint16_t {
  kSignature = 0x00,      // "QEMU"
  kId = 0x01,             // u32: bit 0 traditional interface, bit 1 DMA
  kRamSize = 0x03,        // u64, bytes
  kNoGraphic = 0x04,      // u16
  kCpuCount = 0x05,       // u16
  kKernelAddress = 0x07,  // u32
  kKernelSize = 0x08,     // u32: the part after the setup sectors
  kInitrdAddress = 0x0a,  // u32
  kInitrdSize = 0x0b,     // u32
  kBootMenu = 0x0e,       // u16
  kMaxCpus = 0x0f,        // u16
  kKernelData = 0x11,
  kInitrdData = 0x12,
  kCommandLineAddress = 0x13,  // u32
  kCommandLineSize = 0x14,     // u32, with the final NUL
  kCommandLineData = 0x15,     // with the final NUL
  kSetupAddress = 0x16,        // u32
  kSetupSize = 0x17,           // u32
  kSetupData = 0x18,
  kFileDirectory = 0x19,
};

// An item's bytes, which stay where they are.
class FwCfgItem {
 public:
  FwCfgItem() = default;
  // The item's own copy.
  explicit FwCfgItem(std::vector<std::byte> bytes);
  // Borrowed; `keeper` (may be null) is held for as long as the item lives. With a null keeper the bytes must outlive
  // the device.
  explicit FwCfgItem(std::span<const std::byte> bytes, std::shared_ptr<const void> keeper = nullptr)
      : bytes_(bytes), keeper_(std::move(keeper)) {}

  static FwCfgItem text(std::string_view text);  // without a final NUL
  static FwCfgItem u16(std::uint16_t value);
  static FwCfgItem u32(std::uint32_t value);
  static FwCfgItem u64(std::uint64_t value);
  // The file, mapped and not read. Throws Error (kBadUsage) when it cannot be opened or mapped.
  static FwCfgItem file(const std::string& path);

  [[nodiscard]] std::span<const std::byte> bytes() const noexcept { return bytes_; }

 private:
  std::span<const std::byte> bytes_;
  std::shared_ptr<const void> keeper_;
};

class FwCfg final : public Device {
 public:
  static constexpr std::uint64_t kLength = 12;  // 0x510 selector (16 bits), 0x511 data, 0x514 DMA address (64 bits)
  static constexpr std::size_t kMaxNameLength = 55;  // and a NUL
  static constexpr std::size_t kMaxFiles = 0x100;

  // Without `dma` (null) the device offers the traditional interface only. `dma` must outlive the device.
  explicit FwCfg(GuestDma* dma);

  // Set-up, before the guest runs. An item that exists already is replaced. Throws Error (kCrash) for the keys that the
  // device makes itself, for bad names, for more than kMaxFiles files and for an item of 4 GiB or more.
  void add(FwCfgKey key, FwCfgItem item);
  void add_file(std::string_view name, FwCfgItem item);

  // The bytes of a file, or an empty span (for whoever assembles the machine; the guest goes by keys).
  [[nodiscard]] std::span<const std::byte> find_file(std::string_view name) const;

  void read(std::uint64_t offset, std::span<std::byte> to) override;
  void write(std::uint64_t offset, std::span<const std::byte> from) override;
  void read_string(std::uint64_t offset, std::size_t element, std::span<std::byte> to) override;

 private:
  void put(std::uint16_t key, FwCfgItem item);
  void rebuild_directory();
  void select(std::uint16_t key);
  void read_data(std::span<std::byte> to);
  void run_dma(Gpa at);
  [[nodiscard]] bool transfer(std::uint32_t control, Gpa at, std::uint32_t length);

  GuestDma* dma_;
  mutable std::mutex mutex_;  // guards all below
  std::map<std::uint16_t, FwCfgItem> items_;
  std::map<std::string, FwCfgItem, std::less<>> files_;  // sorted, as the directory is
  std::span<const std::byte> current_;                   // of the selected item
  std::size_t position_ = 0;                             // in current_, at most its size
  std::uint64_t dma_address_ = 0;
};

}  // namespace sevisor::devices
