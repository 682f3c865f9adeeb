// What the Secure Processor answers to a SEV command. AMD SEV API (55766) chapter 4, table "Status Codes";
// Linux include/uapi/linux/psp-sev.h, sev_ret_code.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace sevisor::sev {

enum class FirmwareStatus : std::uint32_t {
  kSuccess = 0,
  kInvalidPlatformState = 1,
  kInvalidGuestState = 2,
  kInvalidConfig = 3,
  kInvalidLength = 4,
  kAlreadyOwned = 5,
  kInvalidCertificate = 6,
  kPolicyFailure = 7,
  kInactive = 8,
  kInvalidAddress = 9,
  kBadSignature = 10,
  kBadMeasurement = 11,
  kAsidOwned = 12,
  kInvalidAsid = 13,
  kWbinvdRequired = 14,
  kDfFlushRequired = 15,
  kInvalidGuest = 16,
  kInvalidCommand = 17,
  kActive = 18,
  kHardwareErrorPlatform = 19,
  kHardwareErrorUnsafe = 20,
  kUnsupported = 21,
  kInvalidParam = 22,
  kResourceLimit = 23,
  kSecureDataInvalid = 24,
  kNoFirmwareCall = 0xffffffff,  // the kernel's own: the command never reached the firmware
};

// "INVALID_GUEST_STATE", as the API document spells it. Empty for a number it does not name.
[[nodiscard]] std::string_view firmware_status_name(std::uint32_t status) noexcept;

// "INVALID_GUEST_STATE (2): the command is not allowed in the guest's present state"; a number without a name is said
// to be one.
[[nodiscard]] std::string firmware_status_text(std::uint32_t status);

}  // namespace sevisor::sev
