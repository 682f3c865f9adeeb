// QEMU's fw_cfg device: how the VMM hands over kernel, initrd, command line, memory map and ACPI tables.
// QEMU docs/specs/fw_cfg.rst. What it says comes from the hypervisor: sizes are bounded, data is copied to private
// memory before anything looks at it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

namespace sevisor::firmware {

// Items with keys of their own (QEMU include/standard-headers/linux/qemu_fw_cfg.h).
enum class FwCfgKey : std::uint16_t {
  kSignature = 0x00,
  kId = 0x01,
  kNumberOfCpus = 0x05,
  kKernelAddress = 0x07,
  kKernelSize = 0x08,
  kInitrdSize = 0x0b,
  kKernelEntry = 0x10,
  kKernelData = 0x11,
  kInitrdData = 0x12,
  kCmdlineSize = 0x14,
  kCmdlineData = 0x15,
  kSetupSize = 0x17,
  kSetupData = 0x18,
  kFileDirectory = 0x19,
};

struct FwCfgFile {
  std::uint32_t size = 0;
  std::uint16_t key = 0;
};

class FwCfg {
 public:
  // Nothing when there is no such device. Uses DMA if the device has it; FW_BOUNCE is shared memory by then.
  [[nodiscard]] static std::optional<FwCfg> open() noexcept;

  // Reads from an item's start. False when the device reports an error; no end of the item is noticed (it reads as
  // zeros).
  [[nodiscard]] bool read(std::uint16_t key, std::span<std::byte> to) noexcept;
  [[nodiscard]] bool read(FwCfgKey key, std::span<std::byte> to) noexcept {
    return read(static_cast<std::uint16_t>(key), to);
  }
  // A little-endian integer item.
  [[nodiscard]] std::optional<std::uint32_t> read32(FwCfgKey key) noexcept;
  [[nodiscard]] std::optional<FwCfgFile> find(std::string_view name) noexcept;

 private:
  explicit FwCfg(bool dma) noexcept : dma_(dma) {}
  // With DMA `first_control` goes with the first transfer.
  [[nodiscard]] bool read_on(std::uint32_t first_control, std::span<std::byte> to) noexcept;
  [[nodiscard]] bool continue_reading(std::span<std::byte> to) noexcept;
  [[nodiscard]] bool transfer(std::uint32_t control, std::uint32_t length) noexcept;

  bool dma_ = false;
};

}  // namespace sevisor::firmware
