#include "firmware/image.hpp"

extern "C" const std::byte sevisor_firmware_begin[], sevisor_firmware_end[];  // embed.S

namespace sevisor::firmware {

std::span<const std::byte> image() noexcept { return {sevisor_firmware_begin, sevisor_firmware_end}; }

}  // namespace sevisor::firmware
