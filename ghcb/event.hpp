// How the hypervisor answers an NAE event: SW_EXITINFO1 says whether it worked, SW_EXITINFO2 what went wrong or which
// exception to raise, the latter in the form of EVENTINJ. GHCB specification (AMD 56421) section 4.1; APM vol. 2
// section 15.20. Freestanding.
#pragma once

#include <cstdint>

namespace sevisor::ghcb {

// SW_EXITINFO1[31:0] on return.
inline constexpr std::uint64_t kResultSuccess = 0;
inline constexpr std::uint64_t kResultException = 1;  // raise the exception in exit_info_2
inline constexpr std::uint64_t kResultMalformed = 2;  // the request was refused; exit_info_2 is an InputError

// SW_EXITINFO2 with kResultMalformed.
enum class InputError : std::uint64_t {
  kNotRegistered = 1,     // SNP only
  kUnsupportedUsage = 2,  // GHCB_USAGE
  kInvalidScratch = 3,    // SW_SCRATCH outside what is allowed
  kMissingInput = 4,      // a field that the event needs is not marked valid
  kInvalidInput = 5,      // a field has a value that the event does not know
  kUnsupportedEvent = 6,  // unknown exit code
};

// EVENTINJ, EXITINTINFO and exit_info_2 with kResultException.
enum class EventType : unsigned { kExternal = 0, kNmi = 2, kException = 3, kSoftware = 4 };

struct Event {
  std::uint8_t vector = 0;
  EventType type = EventType::kException;
  bool has_error_code = false;
  bool valid = true;
  std::uint32_t error_code = 0;

  friend constexpr bool operator==(const Event&, const Event&) noexcept = default;
};

inline constexpr std::uint64_t kEventErrorCodeValid = std::uint64_t{1} << 11;
inline constexpr std::uint64_t kEventValid = std::uint64_t{1} << 31;

constexpr std::uint64_t encode(const Event& event) noexcept {
  return std::uint64_t{event.vector} | std::uint64_t{static_cast<unsigned>(event.type)} << 8 |
         (event.has_error_code ? kEventErrorCodeValid : 0) | (event.valid ? kEventValid : 0) |
         std::uint64_t{event.error_code} << 32;
}
// Reserved bits 30:12 are dropped; a type that no enumerator names stays as its number.
constexpr Event decode_event(std::uint64_t value) noexcept {
  return {.vector = static_cast<std::uint8_t>(value),
          .type = static_cast<EventType>(value >> 8 & 7),
          .has_error_code = (value & kEventErrorCodeValid) != 0,
          .valid = (value & kEventValid) != 0,
          .error_code = static_cast<std::uint32_t>(value >> 32)};
}

// Exception vectors that the protocol and its handlers name (APM vol. 2 section 8.2).
inline constexpr std::uint8_t kVectorDb = 1;
inline constexpr std::uint8_t kVectorUd = 6;
inline constexpr std::uint8_t kVectorGp = 13;
inline constexpr std::uint8_t kVectorPf = 14;
inline constexpr std::uint8_t kVectorAc = 17;
inline constexpr std::uint8_t kVectorVc = 29;

}  // namespace sevisor::ghcb
