// The port by which a guest's kernel reports that it has panicked (QEMU docs/specs/pvpanic, ISA variant; ACPI
// QEMU0001).
#pragma once

#include <cstdint>
#include <span>

#include "devices/bus.hpp"
#include "devices/machine_event.hpp"

namespace sevisor::devices {

inline constexpr std::uint64_t kPvpanicPort = 0x505;

// One register: reads tell which events are known, a write reports one. A panic that the guest itself goes on from (it
// has a crash kernel loaded) does not end the machine.
class Pvpanic final : public Device {
 public:
  static constexpr std::uint64_t kLength = 1;
  explicit Pvpanic(MachineEventSink sink) : sink_(std::move(sink)) {}
  void read(std::uint64_t offset, std::span<std::byte> to) override;
  void write(std::uint64_t offset, std::span<const std::byte> from) override;

 private:
  MachineEventSink sink_;
};

}  // namespace sevisor::devices
