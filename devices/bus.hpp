// The port bus and the MMIO bus: which device answers at which address.
//
// A bus is assembled before the first vCPU runs and does not change afterwards, so look-ups need no lock. Devices lock
// for themselves: vCPU threads and the console thread may call one device at the same time. What the guest itself moves
// about is a MovableRange, which looks up its own place at each access.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace sevisor::devices {

class Device {
 public:
  virtual ~Device() = default;

  // One access of 1, 2, 4 or 8 bytes, little-endian as the guest's register holds them. `offset`: bytes from the
  // device's first register; the access lies wholly inside the device's range.
  virtual void read(std::uint64_t offset, std::span<std::byte> to) = 0;
  virtual void write(std::uint64_t offset, std::span<const std::byte> from) = 0;

  // INS and OUTS: repeated accesses of `element` bytes each to the register at `offset`; the span's size is a multiple
  // of `element`. A device overrides these only to be faster than one access at a time.
  virtual void read_string(std::uint64_t offset, std::size_t element, std::span<std::byte> to);
  virtual void write_string(std::uint64_t offset, std::size_t element, std::span<const std::byte> from);

 protected:
  Device() = default;
  Device(const Device&) = default;
  Device& operator=(const Device&) = default;
};

// Answers at addresses that the guest chooses and may change at any time, from any vCPU.
class MovableRange {
 public:
  virtual ~MovableRange() = default;

  // One access of 1, 2, 4 or 8 bytes at an address of the bus. False: it does not lie whole in the range as that is
  // now, and nothing was done. Looking and accessing are one step for whoever moves the range meanwhile.
  virtual bool read_at(std::uint64_t address, std::span<std::byte> to) = 0;
  virtual bool write_at(std::uint64_t address, std::span<const std::byte> from) = 0;

 protected:
  MovableRange() = default;
  MovableRange(const MovableRange&) = default;
  MovableRange& operator=(const MovableRange&) = default;
};

class Bus {
 public:
  // `name`: for messages. `size`: addresses on the bus run from 0 to size - 1.
  Bus(std::string name, std::uint64_t size) : name_(std::move(name)), size_(size) {}

  // Lets `device` answer at [base, base + length). It sees offsets from `first_offset` on, so that a device with
  // several ranges can tell them apart. The device must outlive the bus. Throws Error (kCrash) when the range is empty,
  // does not fit the bus or overlaps one that is taken.
  void add(std::uint64_t base, std::uint64_t length, Device& device, std::string device_name,
           std::uint64_t first_offset = 0);

  // Asks `range` about accesses that touch no range of add(): wherever the guest moves it, it takes no other device's
  // addresses. There can be one. It must outlive the bus. Throws Error (kCrash) for a second one.
  void add_movable(MovableRange& range);

  // One access of 1, 2, 4 or 8 bytes; other sizes, and accesses that no range holds whole, read as all ones and write
  // nothing. (An access is never split: a 4-byte access to 0xCF8 must not reach the reset register at 0xCF9.)
  // The answer says whether a device was there.
  bool read(std::uint64_t address, std::span<std::byte> to) const;
  bool write(std::uint64_t address, std::span<const std::byte> from) const;

  // INS/OUTS: data.size() / element accesses to one address; a rest smaller than `element` reads as ones.
  bool read_string(std::uint64_t address, std::size_t element, std::span<std::byte> to) const;
  bool write_string(std::uint64_t address, std::size_t element, std::span<const std::byte> from) const;

 private:
  struct Range {
    std::uint64_t base;
    std::uint64_t length;
    std::uint64_t first_offset;
    Device* device;
    std::string name;
  };

  [[nodiscard]] const Range* find(std::uint64_t address, std::size_t size) const noexcept;
  // The movable range, if it may be asked: no byte of the access is of a range of add().
  [[nodiscard]] MovableRange* movable_for(std::uint64_t address, std::size_t size) const noexcept;
  void trace_unclaimed(const char* what, std::uint64_t address, std::size_t size) const;

  std::string name_;
  std::uint64_t size_;
  std::vector<Range> ranges_;  // by base, disjoint
  MovableRange* movable_ = nullptr;
};

inline constexpr std::uint64_t kPortBusSize = 0x10000;                 // AMD APM vol. 1, 3.8: 64 KiB of I/O space
inline constexpr std::uint64_t kMmioBusSize = std::uint64_t{1} << 52;  // AMD APM vol. 2, 5.1: largest physical address

}  // namespace sevisor::devices
