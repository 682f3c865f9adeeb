#include "firmware/vc_platform.hpp"

#include "firmware/cpu.hpp"
#include "ghcb/msr_protocol.hpp"

namespace sevisor::firmware {

namespace {
constexpr std::uint32_t kMsrFsBase = 0xc0000100;
constexpr std::uint32_t kMsrGsBase = 0xc0000101;

bool mapped(std::uint64_t linear, std::size_t size) noexcept {
  return linear < kMappedBytes && size <= kMappedBytes - linear;
}

// One side is the GHCB page, the other may be a device, whose #VCs are served only between it and private memory.
void copy(std::uint8_t* to, const std::uint8_t* from, std::size_t size) noexcept {
  std::uint8_t piece[64];
  while (size != 0) {
    const std::size_t count = size < sizeof piece ? size : sizeof piece;
    __builtin_memcpy(piece, from, count);
    __builtin_memcpy(to, piece, count);
    to += count;
    from += count;
    size -= count;
  }
}
}  // namespace

ghcb::Page& VcPlatform::page() noexcept { return *reinterpret_cast<ghcb::Page*>(FW_GHCB); }

void VcPlatform::vmgexit() noexcept {
  write_msr(ghcb::msr::kGhcbMsr, FW_GHCB);
  firmware::vmgexit();
}

std::size_t VcPlatform::fetch(std::uint64_t linear, std::span<std::uint8_t> bytes) noexcept {
  if (linear >= kMappedBytes) return 0;
  const std::uint64_t there = kMappedBytes - linear;
  const std::size_t count = there < bytes.size() ? there : bytes.size();
  __builtin_memcpy(bytes.data(), reinterpret_cast<const void*>(linear), count);
  return count;
}

bool VcPlatform::read(std::uint64_t linear, std::span<std::uint8_t> bytes) noexcept {
  if (!mapped(linear, bytes.size())) return false;
  copy(bytes.data(), reinterpret_cast<const std::uint8_t*>(linear), bytes.size());
  return true;
}

bool VcPlatform::write(std::uint64_t linear, std::span<const std::uint8_t> bytes) noexcept {
  if (!mapped(linear, bytes.size())) return false;
  copy(reinterpret_cast<std::uint8_t*>(linear), bytes.data(), bytes.size());
  return true;
}

ghcb::guest::Translation VcPlatform::translate(std::uint64_t linear) noexcept {
  return firmware::translate(linear, early_state().c_bit_mask);
}

std::uint64_t VcPlatform::segment_base(ghcb::guest::SegmentOverride segment) noexcept {
  if (segment == ghcb::guest::SegmentOverride::kFs) return read_msr(kMsrFsBase);
  if (segment == ghcb::guest::SegmentOverride::kGs) return read_msr(kMsrGsBase);
  return 0;
}

// The firmware leaves CR4.OSXSAVE clear.
std::uint64_t VcPlatform::xcr0() noexcept { return 1; }

}  // namespace sevisor::firmware
