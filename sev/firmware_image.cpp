#include "sev/firmware_image.hpp"

#include <fmt/format.h>
#include <utility>

#include "base/error.hpp"

namespace sevisor::sev {

FirmwareImage::FirmwareImage(std::span<const std::byte> bytes, std::string name)
    : bytes_(bytes), name_(std::move(name)), facts_(examine_firmware(bytes)) {}

FirmwareImage::FirmwareImage(std::shared_ptr<const std::vector<std::byte>> file, std::string name)
    : FirmwareImage(std::span(*file), std::move(name)) {
  file_ = std::move(file);
}

void FirmwareImage::refuse(std::string came_back, std::string advice) const {
  throw Error(ExitCode::kBadUsage, fmt::format("use the firmware '{}'", name_), std::move(came_back),
              std::move(advice));
}

const FooterTable& FirmwareImage::table() const {
  if (!facts_.table) {
    refuse(fmt::format("its footer table cannot be used ({})", facts_.table_error),
           "Give a whole firmware image made for SEV-ES; 'sevisor firmware FILE' tells more of an image.");
  }
  return *facts_.table;
}

std::uint32_t FirmwareImage::ap_reset_address() const {
  const FooterTable& footer = table();
  try {
    return require_ap_reset_address(footer);
  } catch (const Error& error) {
    refuse(error.came_back(), error.advice());
  }
}

FooterArea FirmwareImage::hashes_area() const {
  const FooterTable& footer = table();
  try {
    return require_hashes_area(footer);
  } catch (const Error& error) {
    refuse(error.came_back(), error.advice());
  }
}

FooterArea FirmwareImage::secret_area() const {
  const auto area = table().secret_area();
  if (!area) {
    refuse("it names no area for secrets",
           "Use a firmware that does, such as sevisor's own (leave out the option that names another).");
  }
  return *area;
}

}  // namespace sevisor::sev
