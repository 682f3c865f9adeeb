// Ports for test guests and firmware logs, and one for ports where nothing is.
#pragma once

#include <cstdint>
#include <functional>
#include <span>

#include "devices/bus.hpp"
#include "devices/machine_event.hpp"

namespace sevisor::devices {

inline constexpr std::uint64_t kDebugExitPort = 0xf4;
inline constexpr std::uint64_t kDebugconPort = 0x402;
inline constexpr std::uint64_t kPostCodePort = 0x80;

// As QEMU's isa-debug-exit: a write ends the run with the value written (1, 2 or 4 bytes).
class DebugExit final : public Device {
 public:
  static constexpr std::uint64_t kLength = 4;
  explicit DebugExit(MachineEventSink sink) : sink_(std::move(sink)) {}
  void read(std::uint64_t offset, std::span<std::byte> to) override;
  void write(std::uint64_t offset, std::span<const std::byte> from) override;

 private:
  MachineEventSink sink_;
};

// As QEMU's isa-debugcon, the log port of OVMF: reads 0xE9 so that firmware knows it is there.
class Debugcon final : public Device {
 public:
  static constexpr std::uint64_t kLength = 1;
  // Called on the vCPU's thread with each run of bytes; locks for itself.
  using Sink = std::function<void(std::span<const std::byte>)>;
  explicit Debugcon(Sink sink) : sink_(std::move(sink)) {}
  void read(std::uint64_t offset, std::span<std::byte> to) override;
  void write(std::uint64_t offset, std::span<const std::byte> from) override;
  void write_string(std::uint64_t offset, std::size_t element, std::span<const std::byte> from) override;

 private:
  Sink sink_;
};

// Reads as all ones and takes writes, as an empty bus does, but without a line in the trace log: for ports that guests
// use as a delay (0x80).
class NoDevice final : public Device {
 public:
  void read(std::uint64_t offset, std::span<std::byte> to) override;
  void write(std::uint64_t offset, std::span<const std::byte> from) override;
};

}  // namespace sevisor::devices
