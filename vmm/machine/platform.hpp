// The devices of the machine on their two buses.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "devices/bus.hpp"
#include "devices/clock.hpp"
#include "devices/debug_ports.hpp"
#include "devices/fw_cfg.hpp"
#include "devices/guest_dma.hpp"
#include "devices/io_apic.hpp"
#include "devices/machine_event.hpp"
#include "devices/pci_host.hpp"
#include "devices/pflash.hpp"
#include "devices/pm_timer.hpp"
#include "devices/power.hpp"
#include "devices/pvpanic.hpp"
#include "devices/rtc_cmos.hpp"
#include "devices/uart_16550.hpp"
#include "vmm/boot/input_file.hpp"
#include "vmm/boot/kernel_image.hpp"
#include "vmm/console/serial_input.hpp"
#include "vmm/machine/buses.hpp"
#include "vmm/machine/memory_map.hpp"

namespace sevisor::vmm {

class Platform {
 public:
  struct Wiring {
    devices::GuestDma& dma;
    devices::Clock& clock;
    std::function<void(std::uint32_t gsi, bool level)> set_irq;
    devices::Uart16550::Sink console;  // what the guest prints
    devices::MachineEventSink events;
    std::optional<devices::IoApic::Wiring> io_apic = std::nullopt;  // the host has none: set_irq is not called
  };
  struct Flash {
    Gpa base;
    std::span<std::byte> content;  // empty: there is no flash
    devices::Pflash::Changed changed;
  };
  struct Config {
    unsigned vcpus = 1;
    MemoryMap memory;
    std::int64_t rtc_time = 0;  // seconds since 1970 when the machine starts
    Flash flash = {};
  };

  // What `wiring` refers to must outlive the platform.
  Platform(const Wiring& wiring, const Config& config);

  // Hands a kernel to the firmware, through fw_cfg. `initrd` may be null.
  void add_kernel(const FileBytes& kernel, const KernelImage& header, const FileBytes& initrd,
                  const std::string& cmdline);

  [[nodiscard]] Buses buses() const noexcept {
    return {.ports = ports_, .mmio = mmio_, .memory = nullptr, .io_apic = io_apic_.get()};
  }
  [[nodiscard]] SerialInput& serial_input() noexcept { return serial_input_; }
  // Asks the guest to power off. From any thread.
  void press_power_button() { pm1_.press_power_button(); }

 private:
  [[nodiscard]] devices::IrqLine line_of(const Wiring& wiring, std::uint32_t gsi) const;
  void add_tables(const Config& config);

  std::unique_ptr<devices::IoApic> io_apic_;  // null: the host has it
  devices::Uart16550 uart_;
  SerialInput serial_input_;
  devices::RtcCmos rtc_;
  devices::PmTimer pm_timer_;
  devices::Pm1Registers pm1_;
  devices::ResetRegister reset_;
  devices::PciHost pci_;
  devices::SystemControlA system_control_;
  devices::I8042Stub keyboard_;
  devices::Pvpanic pvpanic_;
  devices::NoDevice post_code_;
  devices::NoDevice ram_;  // on the MMIO bus, in RAM's place
  devices::FwCfg fw_cfg_;
  std::optional<devices::Pflash> flash_;
  devices::Bus ports_{"port", devices::kPortBusSize};
  devices::Bus mmio_{"MMIO", devices::kMmioBusSize};
};

}  // namespace sevisor::vmm
