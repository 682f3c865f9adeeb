// What the guest asks of the machine as a whole.
#pragma once

#include <cstdint>
#include <functional>

namespace sevisor::devices {

struct MachineEvent {
  enum class Kind : std::uint8_t {
    kPowerOff,   // ACPI S5
    kReset,      // any of the reset registers
    kPanic,      // the guest's kernel panicked
    kDebugExit,  // the debug-exit port; `value` is what was written
    kNeedsSmm,   // firmware has found that the machine has no System Management Mode, and will not go on
  };
  Kind kind = Kind::kPowerOff;
  std::uint32_t value = 0;

  friend bool operator==(const MachineEvent&, const MachineEvent&) = default;
};

// Called on the thread of the vCPU whose write caused the event; the write completes whatever the machine then does.
using MachineEventSink = std::function<void(const MachineEvent&)>;

}  // namespace sevisor::devices
