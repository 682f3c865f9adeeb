// The ACPI tables of the machine, as files for fw_cfg: the firmware places them by the loader script.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

namespace sevisor::devices::acpi {

// What the tables describe. The machine is hardware-reduced (ACPI 6.4, 3.11.1): no SCI, no PM1 registers, no legacy
// PIC.
struct Machine {
  std::vector<std::uint32_t> apic_ids;  // of the CPUs, the BSP first; at least one
  std::uint32_t ioapic_address = 0xfec00000;
  std::uint32_t local_apic_address = 0xfee00000;
  std::uint16_t sleep_control_port = 0x640;  // the status register is the next port
  std::uint16_t reset_port = 0xcf9;
  std::uint8_t reset_value = 6;
  std::uint8_t sleep_type_s5 = 5;
  // 24 bits. Hardware-reduced machines need not have it, but Linux calibrates its TSC with it when the PIT, of which
  // each read is an exit, is too slow for that; it costs some tens of reads.
  std::optional<std::uint16_t> pm_timer_port = 0x608;
  bool com1 = true;  // 0x3F8, IRQ 4
  bool rtc = true;   // 0x70, IRQ 8
};

inline constexpr const char* kTablesFile = "etc/acpi/tables";
inline constexpr const char* kRsdpFile = "etc/acpi/rsdp";
inline constexpr const char* kLoaderFile = "etc/table-loader";

struct Files {
  std::vector<std::byte> tables;  // etc/acpi/tables: DSDT, FADT, MADT, XSDT
  std::vector<std::byte> rsdp;    // etc/acpi/rsdp
  std::vector<std::byte> loader;  // etc/table-loader
};

// Throws Error (kCrash) when the description is not consistent (no CPU, an APIC ID twice).
[[nodiscard]] Files build(const Machine& machine);

}  // namespace sevisor::devices::acpi
