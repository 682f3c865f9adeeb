// NOR flash with the Intel command set and CFI, 8 bits wide, in blocks of 4 KiB: what QEMU's PC machines have below
// 4 GiB (cfi.pflash01) and OVMF keeps its variables in. JEDEC JESD68.01 (CFI); Intel StrataFlash datasheet 290667,
// tables 14 and 15. It answers every access; where the guest's memory holds the array itself, only writes and requests
// by way of the GHCB come here.
//
// As QEMU's: operations end at once, programming stores the value as it is (flash proper could only clear bits), blocks
// are never locked, identifiers and the array's status after a reset read 0.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <mutex>
#include <span>

#include "devices/bus.hpp"

namespace sevisor::devices {

class Pflash final : public Device {
 public:
  static constexpr std::size_t kBlockSize = 0x1000;            // bytes
  static constexpr std::size_t kMaxSize = kBlockSize * 65536;  // CFI counts blocks in 16 bits
  static constexpr std::size_t kWriteBufferSize = 256;         // bytes, and their alignment

  // Called with the device's lock held when the array has changed at [offset, offset + size).
  using Changed = std::function<void(std::size_t offset, std::size_t size)>;

  // `array`: the content, which outlives the device; a multiple of kBlockSize up to kMaxSize. Throws Error (kCrash) for
  // another size.
  Pflash(std::span<std::byte> array, Changed changed);

  // Commands are the low byte of a write, status and CFI answers fill each byte of a read; the array is read and
  // programmed in whole accesses.
  void read(std::uint64_t offset, std::span<std::byte> to) override;
  void write(std::uint64_t offset, std::span<const std::byte> from) override;

 private:
  enum class Reads : std::uint8_t { kArray, kStatus, kIdentifier, kCfi };
  enum class Expects : std::uint8_t { kCommand, kData, kEraseConfirm, kCount, kBufferData, kBufferConfirm, kLock };
  static constexpr std::size_t kCfiSize = 0x52;

  void command(std::uint8_t code);
  void fill_buffer(std::size_t offset, std::span<const std::byte> from);
  void program(std::size_t offset, std::span<const std::byte> from);
  void erase_block_at(std::size_t offset);
  void finish(std::uint8_t status);
  void back_to_array() noexcept;

  std::span<std::byte> array_;
  Changed changed_;
  std::array<std::uint8_t, kCfiSize> cfi_{};

  std::mutex lock_;
  Reads reads_ = Reads::kArray;
  Expects expects_ = Expects::kCommand;
  std::uint8_t status_ = 0;

  // A buffered write under way: a copy of the block of kWriteBufferSize bytes that it is in.
  std::array<std::byte, kWriteBufferSize> buffer_{};
  std::size_t buffer_offset_ = 0;  // of that block
  std::size_t bytes_to_come_ = 0;
  bool outside_ = false;  // some of the data was
};

}  // namespace sevisor::devices
