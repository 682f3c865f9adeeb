// The guest owner's secret, which LAUNCH_SECRET has put into the area that the footer table names. Its table is that of
// QEMU's sev-inject-launch-secret and of Linux drivers/virt/coco/efi_secret: GUID 1e74f542-71dd-4d66-963e-ef4287ff173b,
// u32 length of it all, then entries of GUID, u32 length with this head, data. Freestanding.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace sevisor::firmware {

// Type of the item in boot_params' setup_data list: "SEVS". Linux keeps the memory of items whose type it does not
// know, and shows them below /sys/kernel/boot_params/setup_data.
inline constexpr std::uint32_t kSetupDataSecret = 0x53564553;

// Bytes of the table, 0 when there is none or it is malformed.
[[nodiscard]] std::size_t secret_table_length(std::span<const std::byte> area) noexcept;

// Makes the table at the start of `page` a setup_data item there (struct setup_data: u64 next, u32 type, u32 length,
// data), and wipes the rest of the page. `length` is what secret_table_length() gave, at most page.size() - 16.
void make_setup_data(std::span<std::byte> page, std::size_t length) noexcept;

}  // namespace sevisor::firmware
