// Whether a firmware image can do what a guest asks of it, before any host is touched.
#pragma once

#include <cstdint>

#include "base/address.hpp"
#include "sev/firmware_image.hpp"

namespace sevisor::vmm {

// Throws Error (kBadUsage) when the image cannot be a SEV-ES guest's firmware.
// Returns the address at which it wants further vCPUs to start.
[[nodiscard]] std::uint32_t check_firmware(const sev::FirmwareImage& image);

// The same for a plain guest, which needs no footer table.
void check_plain_firmware(const sev::FirmwareImage& image);

// Where the firmware wants the table of kernel hashes. Throws Error (kBadUsage) when it verifies no kernel, or wants
// the table where the guest's low memory (`low_size` bytes from 0) is not.
[[nodiscard]] Gpa check_hashes_area(const sev::FirmwareImage& image, std::uint64_t low_size);

// Where the firmware wants secrets. Throws Error (kBadUsage) when it names no area, or one that is not in the guest's
// low memory (`low_size` bytes from 0).
[[nodiscard]] sev::FooterArea check_secret_area(const sev::FirmwareImage& image, std::uint64_t low_size);

}  // namespace sevisor::vmm
