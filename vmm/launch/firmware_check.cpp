#include "vmm/launch/firmware_check.hpp"

#include <fmt/format.h>

#include "base/bytes.hpp"
#include "base/error.hpp"
#include "sev/hashes_table.hpp"
#include "vmm/machine/memory_map.hpp"
#include "vmm/text/size_text.hpp"

namespace sevisor::vmm {

namespace {

constexpr std::uint32_t kEncryptionBlock = 16;  // bytes

}  // namespace

void check_plain_firmware(const sev::FirmwareImage& image) {
  if (image.size() % kPageSize != 0 || image.size() > kFirmwareMaxSize) {
    throw Error(ExitCode::kBadUsage, fmt::format("use the firmware '{}'", image.name()),
                fmt::format("it has {} bytes; a multiple of {} up to {} is needed", image.size(), kPageSize,
                            size_text(kFirmwareMaxSize)),
                "Give a whole firmware image, such as OVMF_CODE.fd, or leave out --firmware.");
  }
}

std::uint32_t check_firmware(const sev::FirmwareImage& image) {
  check_plain_firmware(image);
  if (image.facts().starts_in_32_bit_code) {
    throw Error(ExitCode::kBadUsage, fmt::format("use the firmware '{}'", image.name()), image.facts().sev_es.why,
                "'sevisor firmware FILE' tells more of an image.");
  }
  return image.ap_reset_address();
}

Gpa check_hashes_area(const sev::FirmwareImage& image, std::uint64_t low_size) {
  const sev::FooterArea area = image.hashes_area();
  // LAUNCH_UPDATE_DATA works on blocks of 16 bytes (AMD SEV API section 6.3).
  if (area.base % kEncryptionBlock != 0 || area.base > low_size || sev::kHashesTableSize > low_size - area.base) {
    throw Error(ExitCode::kBadUsage, fmt::format("use the firmware '{}' with --kernel-hashes", image.name()),
                fmt::format("it wants the hashes at {:#x}, which is not aligned or not the guest's memory", area.base),
                "Raise --memory, or use another firmware.");
  }
  return Gpa(area.base);
}

sev::FooterArea check_secret_area(const sev::FirmwareImage& image, std::uint64_t low_size) {
  const sev::FooterArea area = image.secret_area();
  if (area.base % kEncryptionBlock != 0 || area.base > low_size || area.size > low_size - area.base) {
    throw Error(ExitCode::kBadUsage, fmt::format("use the firmware '{}' with --secret", image.name()),
                fmt::format("it wants secrets at {:#x}, which is not aligned or not the guest's memory", area.base),
                "Raise --memory, or use another firmware.");
  }
  return area;
}

}  // namespace sevisor::vmm
