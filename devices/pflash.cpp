#include "devices/pflash.hpp"

#include <algorithm>
#include <bit>
#include <fmt/format.h>

#include "base/bytes.hpp"
#include "base/error.hpp"

namespace sevisor::devices {

namespace {

// Commands.
constexpr std::uint8_t kProgram = 0x10;
constexpr std::uint8_t kEraseBlock = 0x20;
constexpr std::uint8_t kProgramToo = 0x40;
constexpr std::uint8_t kClearStatus = 0x50;
constexpr std::uint8_t kLockSetup = 0x60;
constexpr std::uint8_t kReadStatus = 0x70;
constexpr std::uint8_t kReadIdentifier = 0x90;
constexpr std::uint8_t kReadCfi = 0x98;
constexpr std::uint8_t kWriteToBuffer = 0xe8;
// What may follow them.
constexpr std::uint8_t kLock = 0x01;
constexpr std::uint8_t kConfirm = 0xd0;  // also: unlock

// Status register.
constexpr std::uint8_t kReady = 0x80;
constexpr std::uint8_t kProgramError = 0x10;

// CFI (JESD68.01, 2.4): where the answers are, and what QEMU's say.
namespace cfi {
constexpr std::size_t kSignature = 0x10;      // "QRY"
constexpr std::size_t kCommandSet = 0x13;     // 1: Intel, extended
constexpr std::size_t kExtendedQuery = 0x15;  // address of the vendor's table
constexpr std::size_t kVccMin = 0x1b;         // volts, tenths in the lower half
constexpr std::size_t kVccMax = 0x1c;
constexpr std::size_t kTypicalTimes = 0x1f;  // byte, buffer (2^n us), block (2^n ms)
constexpr std::size_t kMaximumTimes = 0x23;  // 2^n times the typical ones
constexpr std::size_t kDeviceSize = 0x27;    // 2^n bytes
constexpr std::size_t kInterface = 0x28;     // 2: 8 and 16 bits
constexpr std::size_t kBufferSize = 0x2a;    // 2^n bytes
constexpr std::size_t kRegions = 0x2c;       // of blocks of one size
constexpr std::size_t kBlockCount = 0x2d;    // less one; 16 bits
constexpr std::size_t kBlockSize = 0x2f;     // in units of 256 bytes; 16 bits
constexpr std::size_t kVendorTable = 0x31;   // "PRI", version "10"
constexpr std::size_t kProtectionFields = 0x3f;
constexpr std::size_t kAddressMask = 0xff;  // the query repeats
}  // namespace cfi

std::uint8_t low_byte(std::size_t value) noexcept { return static_cast<std::uint8_t>(value & 0xff); }

}  // namespace

Pflash::Pflash(std::span<std::byte> array, Changed changed) : array_(array), changed_(std::move(changed)) {
  if (array.empty() || array.size() % kBlockSize != 0 || array.size() > kMaxSize) {
    throw Error(ExitCode::kCrash, fmt::format("make a flash of {} bytes", array.size()),
                fmt::format("its size is no multiple of {} up to {}", kBlockSize, kMaxSize));
  }
  const std::size_t blocks_less_one = array.size() / kBlockSize - 1;
  const auto put = [this](std::size_t at, std::initializer_list<std::uint8_t> bytes) {
    std::ranges::copy(bytes, cfi_.begin() + static_cast<std::ptrdiff_t>(at));
  };
  put(cfi::kSignature, {'Q', 'R', 'Y'});
  put(cfi::kCommandSet, {1});
  put(cfi::kExtendedQuery, {cfi::kVendorTable});
  put(cfi::kVccMin, {0x45});
  put(cfi::kVccMax, {0x55});
  put(cfi::kTypicalTimes, {7, 7, 10});
  put(cfi::kMaximumTimes, {4, 4, 4});
  put(cfi::kDeviceSize, {static_cast<std::uint8_t>(std::countr_zero(std::bit_ceil(array.size())))});
  put(cfi::kInterface, {2});
  put(cfi::kBufferSize, {static_cast<std::uint8_t>(std::countr_zero(kWriteBufferSize))});
  put(cfi::kRegions, {1});
  put(cfi::kBlockCount, {low_byte(blocks_less_one), low_byte(blocks_less_one >> 8)});
  put(cfi::kBlockSize, {low_byte(kBlockSize >> 8), low_byte(kBlockSize >> 16)});
  put(cfi::kVendorTable, {'P', 'R', 'I', '1', '0'});
  put(cfi::kProtectionFields, {1});
}

void Pflash::read(std::uint64_t offset, std::span<std::byte> to) {
  const std::lock_guard guard(lock_);
  const auto at = static_cast<std::size_t>(offset);
  switch (reads_) {
    case Reads::kArray:
      std::copy_n(array_.begin() + static_cast<std::ptrdiff_t>(at), to.size(), to.begin());
      break;
    case Reads::kStatus:
      std::ranges::fill(to, std::byte{status_});
      break;
    case Reads::kIdentifier:
      std::ranges::fill(to, std::byte{0});
      break;
    case Reads::kCfi:
      for (std::size_t i = 0; i < to.size(); ++i) {
        const std::size_t query = (at + i) & cfi::kAddressMask;
        to[i] = query < cfi_.size() ? std::byte{cfi_[query]} : std::byte{0};
      }
      break;
  }
}

void Pflash::write(std::uint64_t offset, std::span<const std::byte> from) {
  const std::lock_guard guard(lock_);
  const auto at = static_cast<std::size_t>(offset);
  const auto code = std::to_integer<std::uint8_t>(from[0]);
  switch (expects_) {
    case Expects::kCommand:
      command(code);
      break;
    case Expects::kData:
      program(at, from);
      finish(kReady);
      break;
    case Expects::kEraseConfirm:
      if (code != kConfirm) return back_to_array();
      erase_block_at(at);
      finish(kReady);
      break;
    case Expects::kLock:
      if (code != kConfirm && code != kLock) return back_to_array();
      finish(kReady);
      break;
    case Expects::kCount:
      // Less one, as the buffer can be filled with 256 bytes.
      bytes_to_come_ = std::size_t{code} + 1;
      buffer_offset_ = at / kWriteBufferSize * kWriteBufferSize;
      outside_ = false;
      std::copy_n(array_.begin() + static_cast<std::ptrdiff_t>(buffer_offset_), kWriteBufferSize, buffer_.begin());
      expects_ = Expects::kBufferData;
      break;
    case Expects::kBufferData:
      fill_buffer(at, from);
      break;
    case Expects::kBufferConfirm:
      if (code != kConfirm) return back_to_array();
      if (!outside_) program(buffer_offset_, buffer_);
      finish(outside_ ? kReady | kProgramError : kReady);
      break;
  }
}

void Pflash::command(std::uint8_t code) {
  reads_ = Reads::kStatus;
  switch (code) {
    case kProgram:
    case kProgramToo:
      expects_ = Expects::kData;
      break;
    case kEraseBlock:
      expects_ = Expects::kEraseConfirm;
      status_ |= kReady;
      break;
    case kWriteToBuffer:
      expects_ = Expects::kCount;
      status_ |= kReady;
      break;
    case kLockSetup:
      expects_ = Expects::kLock;
      break;
    case kReadStatus:
      break;
    case kReadIdentifier:
      reads_ = Reads::kIdentifier;
      break;
    case kReadCfi:
      reads_ = Reads::kCfi;
      break;
    case kClearStatus:
      status_ = 0;
      [[fallthrough]];
    default:  // 0xff: read array. Others do not exist.
      back_to_array();
  }
}

void Pflash::fill_buffer(std::size_t offset, std::span<const std::byte> from) {
  if (offset < buffer_offset_ || offset + from.size() > buffer_offset_ + kWriteBufferSize) {
    outside_ = true;
  } else {
    std::ranges::copy(from, buffer_.begin() + static_cast<std::ptrdiff_t>(offset - buffer_offset_));
  }
  bytes_to_come_ -= std::min(bytes_to_come_, from.size());
  if (bytes_to_come_ == 0) expects_ = Expects::kBufferConfirm;
}

void Pflash::program(std::size_t offset, std::span<const std::byte> from) {
  std::ranges::copy(from, array_.begin() + static_cast<std::ptrdiff_t>(offset));
  if (changed_) changed_(offset, from.size());
}

void Pflash::erase_block_at(std::size_t offset) {
  const std::size_t begin = offset / kBlockSize * kBlockSize;
  std::ranges::fill(array_.subspan(begin, kBlockSize), std::byte{0xff});
  if (changed_) changed_(begin, kBlockSize);
}

void Pflash::finish(std::uint8_t status) {
  status_ |= status;
  expects_ = Expects::kCommand;
}

void Pflash::back_to_array() noexcept {
  reads_ = Reads::kArray;
  expects_ = Expects::kCommand;
}

}  // namespace sevisor::devices
