// The firmware's processor and memory, for the #VC handler of ghcb/guest: identity mapped, one GHCB.
// GHCB specification (AMD 56421) section 4.
#pragma once

#include "firmware/guest_state.hpp"
#include "firmware/paging.hpp"
#include "ghcb/guest/vc_handler.hpp"

namespace sevisor::firmware {

class VcPlatform final : public ghcb::guest::Platform {
 public:
  ghcb::Page& page() noexcept override;
  std::uint64_t page_address() const noexcept override { return FW_GHCB; }
  void vmgexit() noexcept override;
  std::size_t fetch(std::uint64_t linear, std::span<std::uint8_t> bytes) noexcept override;
  bool read(std::uint64_t linear, std::span<std::uint8_t> bytes) noexcept override;
  bool write(std::uint64_t linear, std::span<const std::uint8_t> bytes) noexcept override;
  ghcb::guest::Translation translate(std::uint64_t linear) noexcept override;
  std::uint64_t segment_base(ghcb::guest::SegmentOverride segment) noexcept override;
  std::uint64_t xcr0() noexcept override;
};

}  // namespace sevisor::firmware
