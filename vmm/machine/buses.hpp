// Where a vCPU's accesses go that leave memory.
#pragma once

#include "devices/bus.hpp"
#include "devices/guest_dma.hpp"
#include "devices/io_apic.hpp"

namespace sevisor::vmm {

struct Buses {
  const devices::Bus& ports;
  const devices::Bus& mmio;
  devices::GuestDma* memory = nullptr;  // for the reason of a termination, which may stand in a GHCB; null: unread
  devices::IoApic* io_apic = nullptr;   // of this program; null: the host has it
};

}  // namespace sevisor::vmm
