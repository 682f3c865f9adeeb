// The GHCB MSR protocol: requests and replies that fit the GHCB MSR itself, for when there is no GHCB page yet.
// GHCB specification (AMD 56421) section 2.3.1; Linux arch/x86/include/asm/sev-common.h. Freestanding.
#pragma once

#include <cstdint>
#include <optional>

namespace sevisor::ghcb::msr {

inline constexpr std::uint32_t kGhcbMsr = 0xc0010130;
inline constexpr std::uint32_t kSevStatusMsr = 0xc0010131;

// SEV_STATUS (APM vol. 2 section 15.34.10).
inline constexpr std::uint64_t kSevStatusSev = 1 << 0;
inline constexpr std::uint64_t kSevStatusSevEs = 1 << 1;
inline constexpr std::uint64_t kSevStatusSevSnp = 1 << 2;

// Bits 11:0 of the MSR. 0 means that bits 63:12 are the address of a GHCB page.
inline constexpr std::uint64_t kInfoMask = 0xfff;
inline constexpr std::uint64_t kGhcbPage = 0x000;
inline constexpr std::uint64_t kSevInfoResponse = 0x001;
inline constexpr std::uint64_t kSevInfoRequest = 0x002;
inline constexpr std::uint64_t kCpuidRequest = 0x004;
inline constexpr std::uint64_t kCpuidResponse = 0x005;
inline constexpr std::uint64_t kApResetHoldRequest = 0x006;
inline constexpr std::uint64_t kApResetHoldResponse = 0x007;
inline constexpr std::uint64_t kFeaturesRequest = 0x080;
inline constexpr std::uint64_t kFeaturesResponse = 0x081;
inline constexpr std::uint64_t kTerminateRequest = 0x100;

constexpr std::uint64_t info(std::uint64_t value) noexcept { return value & kInfoMask; }

// 0x001, also the value that the hypervisor presets: which protocol versions it speaks and where the C-bit is.
struct SevInfo {
  std::uint16_t max_version = 0;
  std::uint16_t min_version = 0;
  std::uint8_t c_bit = 0;  // bit number in a page-table entry

  friend constexpr bool operator==(const SevInfo&, const SevInfo&) noexcept = default;
};

constexpr std::uint64_t encode(const SevInfo& value) noexcept {
  return std::uint64_t{value.max_version} << 48 | std::uint64_t{value.min_version} << 32 |
         std::uint64_t{value.c_bit} << 24 | kSevInfoResponse;
}
// Nothing when it is another response or a reserved bit (23:12) is set.
constexpr std::optional<SevInfo> decode_sev_info(std::uint64_t value) noexcept {
  if ((value & 0xffffff) != kSevInfoResponse) return std::nullopt;
  return SevInfo{.max_version = static_cast<std::uint16_t>(value >> 48),
                 .min_version = static_cast<std::uint16_t>(value >> 32),
                 .c_bit = static_cast<std::uint8_t>(value >> 24)};
}

// 0x004: one register of CPUID `leaf`, sub-leaf 0.
enum class CpuidRegister : unsigned { kEax = 0, kEbx = 1, kEcx = 2, kEdx = 3 };
struct CpuidRequest {
  std::uint32_t leaf = 0;
  CpuidRegister reg = CpuidRegister::kEax;

  friend constexpr bool operator==(const CpuidRequest&, const CpuidRequest&) noexcept = default;
};

constexpr std::uint64_t encode(const CpuidRequest& value) noexcept {
  return std::uint64_t{value.leaf} << 32 | std::uint64_t{static_cast<unsigned>(value.reg)} << 30 | kCpuidRequest;
}
// Nothing when it is another request or a reserved bit (29:12) is set.
constexpr std::optional<CpuidRequest> decode_cpuid_request(std::uint64_t value) noexcept {
  if ((value & 0x3fffffff) != kCpuidRequest) return std::nullopt;
  return CpuidRequest{.leaf = static_cast<std::uint32_t>(value >> 32),
                      .reg = static_cast<CpuidRegister>(value >> 30 & 3)};
}

// 0x005: the register's value, and which register it is.
constexpr std::uint64_t encode_cpuid_response(std::uint32_t value, CpuidRegister reg) noexcept {
  return std::uint64_t{value} << 32 | std::uint64_t{static_cast<unsigned>(reg)} << 30 | kCpuidResponse;
}
// Nothing when it is another response, one for another register, or a reserved bit (29:12) is set.
constexpr std::optional<std::uint32_t> decode_cpuid_response(std::uint64_t value, CpuidRegister reg) noexcept {
  if ((value & 0xffffffff) != (encode_cpuid_response(0, reg) & 0xffffffff)) return std::nullopt;
  return static_cast<std::uint32_t>(value >> 32);
}

// 0x007: non-zero data says that a SIPI arrived, zero that the hypervisor woke the processor for a reason of its own.
constexpr std::uint64_t encode_ap_reset_hold_response(bool sipi) noexcept {
  return (sipi ? std::uint64_t{1} << 12 : 0) | kApResetHoldResponse;
}
constexpr std::optional<bool> decode_ap_reset_hold_response(std::uint64_t value) noexcept {
  if (info(value) != kApResetHoldResponse) return std::nullopt;
  return (value >> 12) != 0;
}

// 0x081: hypervisor features, as NAE event 0x8000fffd (GHCB version 2). Zero serves SEV-ES.
constexpr std::uint64_t encode_features_response(std::uint64_t features) noexcept {
  return features << 12 | kFeaturesResponse;
}
constexpr std::optional<std::uint64_t> decode_features_response(std::uint64_t value) noexcept {
  if (info(value) != kFeaturesResponse) return std::nullopt;
  return value >> 12;
}

// 0x100: the guest gives up. No reply. Set 0 is the specification's; sets from 1 on are the guest's own.
inline constexpr std::uint8_t kReasonSetGhcb = 0;
inline constexpr std::uint8_t kReasonGeneral = 0;
inline constexpr std::uint8_t kReasonProtocolRange = 1;
inline constexpr std::uint8_t kReasonSnpFeatures = 2;
inline constexpr std::uint8_t kReasonSetGuest = 1;  // Linux, OVMF and our firmware each give their own codes in it

struct Termination {
  std::uint8_t reason_set = kReasonSetGhcb;  // 0 to 15
  std::uint8_t reason = kReasonGeneral;

  friend constexpr bool operator==(const Termination&, const Termination&) noexcept = default;
};

constexpr std::uint64_t encode(const Termination& value) noexcept {
  return std::uint64_t{value.reason} << 16 | std::uint64_t{value.reason_set & 0xfu} << 12 | kTerminateRequest;
}
// Bits 63:24 are ignored: a guest that terminates is heard out.
constexpr std::optional<Termination> decode_termination(std::uint64_t value) noexcept {
  if (info(value) != kTerminateRequest) return std::nullopt;
  return Termination{.reason_set = static_cast<std::uint8_t>(value >> 12 & 0xf),
                     .reason = static_cast<std::uint8_t>(value >> 16)};
}

}  // namespace sevisor::ghcb::msr
