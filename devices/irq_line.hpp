// An interrupt input of the machine as a device sees it.
#pragma once

#include <functional>

namespace sevisor::devices {

// Called with the new level whenever it changes, with the device's lock held so that changes arrive in order: it must
// not call back into the device. An empty line is allowed; the device then works by polling only.
using IrqLine = std::function<void(bool level)>;

}  // namespace sevisor::devices
