#include "firmware/smbios.hpp"

#include "base/bytes.hpp"
#include "firmware/cpu.hpp"
#include "firmware/layout.h"

namespace sevisor::firmware {

namespace {
constexpr std::uint32_t kTableBytesMax = 256 * 1024;
constexpr std::size_t kEntryBytesMax = 32;

// PCI configuration by ports (PCI Local Bus 3.0, section 3.2.2.3.2). Function 0 of device 0 is the host bridge, whose
// PAM0 register says in bits 5:4 what lies from 0xF0000 to 0xFFFFF: 3 is RAM (Intel 82441FX and 3200 data sheets).
constexpr std::uint16_t kConfigAddress = 0xcf8;
constexpr std::uint16_t kConfigData = 0xcfc;
constexpr std::uint32_t kEnable = 0x80000000;
constexpr std::uint8_t kPamRam = 0x30;
struct Bridge {
  std::uint32_t id;
  std::uint8_t pam0;
};
constexpr Bridge kBridges[] = {{0x12378086, 0x59}, {0x29c08086, 0x90}};  // QEMU's pc and q35, and sevisor

// Elsewhere a write might go nowhere, or in a SEV-ES guest be an event that nobody can serve.
bool make_bios_segment_ram() noexcept {
  out32(kConfigAddress, kEnable);
  const std::uint32_t id = in32(kConfigData);
  for (const Bridge& bridge : kBridges) {
    if (bridge.id != id) continue;
    out32(kConfigAddress, kEnable | (bridge.pam0 & 0xfcu));
    out8(static_cast<std::uint16_t>(kConfigData + bridge.pam0 % 4), kPamRam);
    return true;
  }
  return false;
}
}  // namespace

void load_smbios(FwCfg& fw_cfg, MemoryMap& map) noexcept {
  const auto anchor = fw_cfg.find("etc/smbios/smbios-anchor");
  const auto tables = fw_cfg.find("etc/smbios/smbios-tables");
  if (!anchor || !tables || anchor->size > kEntryBytesMax || tables->size == 0 || tables->size > kTableBytesMax) return;
  const std::uint64_t size = align_up(tables->size, kPageSize);
  const auto place = map.find_top(size, kPageSize, FW_HIGH_BEGIN, FW_LOW_LIMIT);
  std::byte bytes[kEntryBytesMax];
  const auto entry = std::span(bytes).first(anchor->size);
  if (!place || !fw_cfg.read(anchor->key, entry) || !complete_smbios_entry(entry, *place, tables->size)) return;
  if (!fw_cfg.read(tables->key, {reinterpret_cast<std::byte*>(*place), tables->size})) return;
  if (!make_bios_segment_ram() || !map.set(*place, *place + size, MemoryType::kReserved)) return;
  __builtin_memcpy(reinterpret_cast<void*>(FW_SMBIOS_ENTRY), entry.data(), entry.size());
}

}  // namespace sevisor::firmware
