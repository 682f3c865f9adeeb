// The ACPI tables of the machine, as files for fw_cfg: the firmware places them by the loader script.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace sevisor::devices::acpi {

// What the tables describe: a machine with ACPI's fixed hardware, always in ACPI mode. Not a hardware-reduced one:
// there Linux resets through EFI's runtime services only, which a guest without EFI does not have. There is no MCFG:
// these tables are made before the firmware chooses where PCI's memory-mapped configuration space is. It reserves the
// place itself, and Linux uses ports.
struct Machine {
  std::vector<std::uint32_t> apic_ids;  // of the CPUs, the BSP first; at least one
  std::uint32_t ioapic_address = 0xfec00000;
  std::uint32_t local_apic_address = 0xfee00000;
  bool pic = true;                         // a pair of 8259s
  std::uint16_t pm1_event_port = 0x600;    // 4 bytes
  std::uint16_t pm1_control_port = 0x604;  // 2 bytes
  std::uint8_t sci_irq = 9;
  std::uint16_t reset_port = 0xcf9;
  std::uint8_t reset_value = 6;
  std::uint8_t sleep_type_s5 = 5;
  std::uint16_t pm_timer_port = 0x608;  // 24 bits
  bool com1 = true;                     // 0x3F8, IRQ 4
  bool rtc = true;                      // 0x70, IRQ 8
  std::uint16_t pvpanic_port = 0;       // 1 byte; 0: none
};

inline constexpr const char* kTablesFile = "etc/acpi/tables";
inline constexpr const char* kRsdpFile = "etc/acpi/rsdp";
inline constexpr const char* kLoaderFile = "etc/table-loader";

struct Files {
  std::vector<std::byte> tables;  // etc/acpi/tables: FACS, DSDT, FADT, MADT, XSDT
  std::vector<std::byte> rsdp;    // etc/acpi/rsdp
  std::vector<std::byte> loader;  // etc/table-loader
};

// Throws Error (kCrash) when the description is not consistent (no CPU, an APIC ID twice).
[[nodiscard]] Files build(const Machine& machine);

}  // namespace sevisor::devices::acpi
