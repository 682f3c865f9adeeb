// The machine's description for dmidecode and for Linux's DMI line, as files for fw_cfg (DMTF DSP0134 version 3.2). The
// firmware places them and sets the entry point's address and checksum.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace sevisor::devices {

inline constexpr const char* kSmbiosEntryFile = "etc/smbios/smbios-anchor";
inline constexpr const char* kSmbiosTablesFile = "etc/smbios/smbios-tables";

struct SmbiosFiles {
  std::vector<std::byte> entry;   // 64-bit entry point
  std::vector<std::byte> tables;  // firmware, system, chassis and amount of memory
};

// `memory`: bytes of RAM.
[[nodiscard]] SmbiosFiles build_smbios(std::uint64_t memory);

}  // namespace sevisor::devices
