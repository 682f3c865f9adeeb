#include "devices/pci_host.hpp"

#include <algorithm>
#include <utility>

#include "base/bytes.hpp"

namespace sevisor::devices {

namespace {
constexpr std::uint64_t kResetOffset = 1;  // 0xCF9
constexpr std::uint64_t kDataOffset = 4;   // 0xCFC to 0xCFF

// The address register: bit 31 enables, bus 23:16, device 15:11, function 10:8, register 7:2.
constexpr std::uint32_t kEnable = 1U << 31;
constexpr std::uint32_t kFunctionMask = 0x00ffff00;
constexpr unsigned kFunctionShift = 8;
constexpr std::uint32_t kRegisterMask = 0xfc;
constexpr std::uint32_t kImplemented = kEnable | kFunctionMask | kRegisterMask;

// Memory-mapped: bus 27:20, device 19:15, function 14:12, register 11:0.
constexpr unsigned kEcamFunctionShift = 12;
constexpr std::uint64_t kEcamRegisterMask = 0xfff;

constexpr std::uint32_t kBridgeFunction = 0;       // 00:00.0
constexpr std::uint32_t kLpcFunction = 0x1f << 3;  // 00:1f.0
constexpr std::uint32_t kNoFunction = 0xffffffff;

constexpr std::uint16_t kIntel = 0x8086;
constexpr std::uint16_t kRedHat = 0x1af4;  // the subsystem, as QEMU's machines have it
constexpr std::uint16_t kQemuMachine = 0x1100;
constexpr PciFunction::Identity kQ35HostBridge{kIntel, 0x29c0, 0, 0x0600, kRedHat, kQemuMachine};
constexpr PciFunction::Identity kIch9LpcBridge{kIntel, 0x2918, 2, 0x0601, kRedHat, kQemuMachine};

// PCIEXBAR of the host bridge (datasheet, 5.1): where the memory-mapped space is. Bit 0 turns it on, bits 2:1 tell its
// length, and the address's bits below the length read as 0.
constexpr std::size_t kPciExpressBar = 0x60;
constexpr std::uint64_t kBarEnable = 1;
constexpr unsigned kBarLengthShift = 1;
constexpr std::uint64_t kBarLengthMask = 3;
constexpr std::uint64_t kBarAddress = 0xffc000000;  // bits 35:26
// Bytes by bits 2:1: 256, 128 and 64 buses of 1 MiB each. The fourth code is reserved, and turns the space off.
constexpr std::array<std::uint64_t, 4> kBarLengths = {256 << 20, 128 << 20, 64 << 20, 0};

struct Window {
  std::uint64_t base = 0;
  std::uint64_t length = 0;  // bytes; 0: there is none
};

std::uint64_t length_of(std::uint64_t bar) { return kBarLengths[(bar >> kBarLengthShift) & kBarLengthMask]; }

Window window_of(std::uint64_t bar) {
  const std::uint64_t length = length_of(bar);
  if ((bar & kBarEnable) == 0 || length == 0) return {};
  return {bar & kBarAddress & ~(length - 1), length};
}

// ESMRAMC (datasheet, 5.1.26): 0 here, where Q35 has three bits that are always set. edk2's SmmAccessPei, which only
// builds with SMM have, reads this byte alone to see whether SMRAM can be had, and loops for ever if not
// (OvmfPkg/SmmAccess/SmmAccessPei.c). Linux does not read it, and lspci reads double words.
constexpr std::size_t kExtendedSmram = 0x9e;

// Of the LPC bridge (datasheet, 13.1.13 and on).
constexpr std::size_t kPmBase = 0x40;  // bits 15:7; bit 0: in I/O space
constexpr std::size_t kAcpiControl = 0x44;
constexpr std::size_t kPirqAToD = 0x60;
constexpr std::size_t kPirqEToH = 0x68;
constexpr std::uint32_t kPirqsOff = 0x80808080;
constexpr std::uint32_t kPirqWritable = 0x8f8f8f8f;
constexpr std::size_t kRootComplexBase = 0xf0;
}  // namespace

PciHost::PciHost(Device& reset, MachineEventSink events)
    : reset_(reset), events_(std::move(events)), bridge_(kQ35HostBridge), lpc_(kIch9LpcBridge) {
  bridge_.define<std::uint64_t>(kPciExpressBar, 0, kBarAddress | kBarLengthMask << kBarLengthShift | kBarEnable);
  // The ACPI registers are always at 0x600, where firmware puts them; what it writes here is only kept.
  lpc_.define<std::uint32_t>(kPmBase, 1, 0xff80);
  lpc_.define<std::uint8_t>(kAcpiControl, 0, 0x87);
  lpc_.define(kPirqAToD, kPirqsOff, kPirqWritable);
  lpc_.define(kPirqEToH, kPirqsOff, kPirqWritable);
  lpc_.define<std::uint32_t>(kRootComplexBase, 0, 0xffffc001);
}

PciHost::Place PciHost::place_of(std::uint64_t offset) const noexcept {
  if ((address_ & kEnable) == 0) return {kNoFunction, 0};
  return {(address_ & kFunctionMask) >> kFunctionShift, (address_ & kRegisterMask) + (offset - kDataOffset)};
}

std::optional<PciHost::Place> PciHost::mapped_place(std::uint64_t address, std::size_t size) const noexcept {
  const Window window = window_of(bridge_.get<std::uint64_t>(kPciExpressBar));
  if (address < window.base || address - window.base >= window.length) return std::nullopt;
  const std::uint64_t offset = address - window.base;
  if (size > window.length - offset) return std::nullopt;
  return Place{static_cast<std::uint32_t>(offset >> kEcamFunctionShift), offset & kEcamRegisterMask};
}

PciFunction* PciHost::find(const Place& place, std::size_t size) noexcept {
  if (place.at + size > PciFunction::kSize) return nullptr;  // none has PCI Express's extended space
  switch (place.function) {
    case kBridgeFunction:
      return &bridge_;
    case kLpcFunction:
      return &lpc_;
    default:
      return nullptr;
  }
}

void PciHost::read_register(const Place& place, std::span<std::byte> to, std::unique_lock<std::mutex>& guard) {
  if (const PciFunction* function = find(place, to.size())) function->read(place.at, to);
  if (place.function != kBridgeFunction || place.at != kExtendedSmram || to.size() != 1) return;
  if (std::exchange(smram_looked_for_, true)) return;
  guard.unlock();
  if (events_) events_({MachineEvent::Kind::kNeedsSmm, 0});
}

void PciHost::write_register(const Place& place, std::span<const std::byte> from) {
  if (PciFunction* function = find(place, from.size())) function->write(place.at, from);
  // With the length, which bits of the address there are changes too.
  const auto bar = bridge_.get<std::uint64_t>(kPciExpressBar);
  const std::uint64_t length = length_of(bar);
  if (length != 0) bridge_.set(kPciExpressBar, bar & ~(kBarAddress & (length - 1)));
}

void PciHost::read(std::uint64_t offset, std::span<std::byte> to) {
  std::ranges::fill(to, std::byte{0xff});
  if (offset == kResetOffset && to.size() == 1) return reset_.read(0, to);
  std::unique_lock guard(lock_);
  if (offset == 0 && to.size() == sizeof address_) return store(to.data(), address_);
  if (offset < kDataOffset) return;
  read_register(place_of(offset), to, guard);
}

void PciHost::write(std::uint64_t offset, std::span<const std::byte> from) {
  if (offset == kResetOffset && from.size() == 1) return reset_.write(0, from);
  const std::lock_guard guard(lock_);
  if (offset == 0 && from.size() == sizeof address_) {
    address_ = load<std::uint32_t>(from.data()) & kImplemented;
    return;
  }
  if (offset < kDataOffset) return;
  write_register(place_of(offset), from);
}

bool PciHost::read_at(std::uint64_t address, std::span<std::byte> to) {
  std::unique_lock guard(lock_);
  const std::optional<Place> place = mapped_place(address, to.size());
  if (!place) return false;
  std::ranges::fill(to, std::byte{0xff});
  read_register(*place, to, guard);
  return true;
}

bool PciHost::write_at(std::uint64_t address, std::span<const std::byte> from) {
  const std::lock_guard guard(lock_);
  const std::optional<Place> place = mapped_place(address, from.size());
  if (!place) return false;
  write_register(*place, from);
  return true;
}

}  // namespace sevisor::devices
