// exit_info_1 of NAE event 0x7b (IOIO): which port access it is. The same form as EXITINFO1 of an IOIO intercept.
// APM vol. 2 section 15.10.2; GHCB specification (AMD 56421) section 4.1.2. Freestanding.
#pragma once

#include <cstdint>
#include <optional>

namespace sevisor::ghcb {

enum class IoSegment : unsigned { kEs = 0, kCs = 1, kSs = 2, kDs = 3, kFs = 4, kGs = 5 };

struct IoAccess {
  std::uint16_t port = 0;
  bool in = false;                     // direction: IN or INS
  bool string = false;                 // INS or OUTS: data in the scratch area, element count in exit_info_2
  bool rep = false;                    // with a REP prefix
  unsigned size = 1;                   // bytes an element: 1, 2 or 4
  unsigned address_size = 8;           // bytes: 2, 4 or 8
  IoSegment segment = IoSegment::kEs;  // of the memory operand of a string form

  friend constexpr bool operator==(const IoAccess&, const IoAccess&) noexcept = default;
};

inline constexpr std::uint64_t kIoIn = 1 << 0;
inline constexpr std::uint64_t kIoString = 1 << 2;
inline constexpr std::uint64_t kIoRep = 1 << 3;
inline constexpr unsigned kIoSizeShift = 4;         // bits 6:4, one set: 8, 16, 32 bits
inline constexpr unsigned kIoAddressSizeShift = 7;  // bits 9:7, one set: 16, 32, 64 bits
inline constexpr unsigned kIoSegmentShift = 10;     // bits 12:10
inline constexpr unsigned kIoPortShift = 16;        // bits 31:16

// `size` and `address_size` as listed above.
constexpr std::uint64_t encode(const IoAccess& access) noexcept {
  return (access.in ? kIoIn : 0) | (access.string ? kIoString : 0) | (access.rep ? kIoRep : 0) |
         std::uint64_t{access.size} << kIoSizeShift | std::uint64_t{access.address_size / 2} << kIoAddressSizeShift |
         std::uint64_t{static_cast<unsigned>(access.segment)} << kIoSegmentShift |
         std::uint64_t{access.port} << kIoPortShift;
}

// Nothing unless exactly one size bit is set, at most one address-size bit, the segment is one of the six, and the
// reserved bits are clear. No address-size bit (a guest may leave it out for a form without memory operand) reads as 8
// bytes.
constexpr std::optional<IoAccess> decode_ioio(std::uint64_t exit_info_1) noexcept {
  const auto size = static_cast<unsigned>(exit_info_1 >> kIoSizeShift & 7);
  const auto address = static_cast<unsigned>(exit_info_1 >> kIoAddressSizeShift & 7);
  const auto segment = static_cast<unsigned>(exit_info_1 >> kIoSegmentShift & 7);
  const bool one_size = size == 1 || size == 2 || size == 4;
  const bool one_address = address == 0 || address == 1 || address == 2 || address == 4;
  const bool reserved = (exit_info_1 & ~std::uint64_t{0xffff1ffd}) != 0;
  if (!one_size || !one_address || segment > 5 || reserved) return std::nullopt;
  return IoAccess{.port = static_cast<std::uint16_t>(exit_info_1 >> kIoPortShift),
                  .in = (exit_info_1 & kIoIn) != 0,
                  .string = (exit_info_1 & kIoString) != 0,
                  .rep = (exit_info_1 & kIoRep) != 0,
                  .size = size,
                  .address_size = address == 0 ? 8 : address * 2,
                  .segment = static_cast<IoSegment>(segment)};
}

}  // namespace sevisor::ghcb
