#include "sev/firmware_status.hpp"

#include <algorithm>
#include <fmt/format.h>
#include <iterator>

namespace sevisor::sev {

namespace {

struct StatusText {
  FirmwareStatus status;
  std::string_view name;
  std::string_view meaning;
};

constexpr StatusText kStatusTexts[] = {
    {FirmwareStatus::kSuccess, "SUCCESS", "the command was carried out"},
    {FirmwareStatus::kInvalidPlatformState, "INVALID_PLATFORM_STATE", "the platform is in a state that forbids it"},
    {FirmwareStatus::kInvalidGuestState, "INVALID_GUEST_STATE", "the guest is in a state that forbids it"},
    {FirmwareStatus::kInvalidConfig, "INVALID_CONFIG", "the platform's configuration forbids it"},
    {FirmwareStatus::kInvalidLength, "INVALID_LENGTH", "a length is wrong or a buffer is too small"},
    {FirmwareStatus::kAlreadyOwned, "ALREADY_OWNED", "the platform has an owner already"},
    {FirmwareStatus::kInvalidCertificate, "INVALID_CERTIFICATE", "a certificate is malformed"},
    {FirmwareStatus::kPolicyFailure, "POLICY_FAILURE", "the guest's policy does not allow it"},
    {FirmwareStatus::kInactive, "INACTIVE", "the guest has no ASID"},
    {FirmwareStatus::kInvalidAddress, "INVALID_ADDRESS", "an address is out of range or not aligned"},
    {FirmwareStatus::kBadSignature, "BAD_SIGNATURE", "a signature does not verify"},
    {FirmwareStatus::kBadMeasurement, "BAD_MEASUREMENT", "a measurement does not match"},
    {FirmwareStatus::kAsidOwned, "ASID_OWNED", "the ASID belongs to another guest"},
    {FirmwareStatus::kInvalidAsid, "INVALID_ASID", "the ASID is out of range"},
    {FirmwareStatus::kWbinvdRequired, "WBINVD_REQUIRED", "the caches must be flushed first"},
    {FirmwareStatus::kDfFlushRequired, "DFFLUSH_REQUIRED", "DF_FLUSH must be done first"},
    {FirmwareStatus::kInvalidGuest, "INVALID_GUEST", "no guest has this handle"},
    {FirmwareStatus::kInvalidCommand, "INVALID_COMMAND", "the firmware does not know the command"},
    {FirmwareStatus::kActive, "ACTIVE", "the guest has an ASID already"},
    {FirmwareStatus::kHardwareErrorPlatform, "HWERROR_PLATFORM", "a hardware fault; the platform can go on"},
    {FirmwareStatus::kHardwareErrorUnsafe, "HWERROR_UNSAFE", "a hardware fault; the platform must be reset"},
    {FirmwareStatus::kUnsupported, "UNSUPPORTED", "the platform does not have this feature"},
    {FirmwareStatus::kInvalidParam, "INVALID_PARAM", "a parameter is wrong"},
    {FirmwareStatus::kResourceLimit, "RESOURCE_LIMIT", "the firmware is out of a resource"},
    {FirmwareStatus::kSecureDataInvalid, "SECURE_DATA_INVALID", "the firmware's stored data is damaged"},
    {FirmwareStatus::kNoFirmwareCall, "NO_FW_CALL", "the kernel did not reach the firmware"},
};

const StatusText* find(std::uint32_t status) noexcept {
  const auto* found = std::find_if(std::begin(kStatusTexts), std::end(kStatusTexts), [status](const StatusText& text) {
    return static_cast<std::uint32_t>(text.status) == status;
  });
  return found == std::end(kStatusTexts) ? nullptr : found;
}

}  // namespace

std::string_view firmware_status_name(std::uint32_t status) noexcept {
  const StatusText* text = find(status);
  return text != nullptr ? text->name : std::string_view{};
}

std::string firmware_status_text(std::uint32_t status) {
  const StatusText* text = find(status);
  if (text == nullptr) return fmt::format("firmware status {:#x}, which has no name here", status);
  if (text->status == FirmwareStatus::kNoFirmwareCall) return fmt::format("{}: {}", text->name, text->meaning);
  return fmt::format("{} ({}): {}", text->name, status, text->meaning);
}

}  // namespace sevisor::sev
