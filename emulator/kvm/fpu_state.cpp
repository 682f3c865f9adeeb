#include "emulator/kvm/fpu_state.hpp"

#include <algorithm>
#include <cstring>

#include "base/bytes.hpp"
#include "emulator/cpu/state/features.hpp"

namespace sevisor::emulator {

namespace {

// The XSAVE area: AMD APM vol. 2 section 11.5.2, table 11-1; the legacy part is FXSAVE's.
constexpr std::size_t kFcw = 0;
constexpr std::size_t kFsw = 2;
constexpr std::size_t kFtw = 4;
constexpr std::size_t kFop = 6;
constexpr std::size_t kRip = 8;
constexpr std::size_t kDp = 16;
constexpr std::size_t kMxcsr = 24;
constexpr std::size_t kMxcsrMask = 28;
constexpr std::size_t kRegisters = 32;
constexpr std::size_t kRegisterSize = 16;
constexpr std::size_t kRegistersSize = 128;
constexpr std::size_t kXmm = 160;
constexpr std::size_t kXmmSize = 256;
constexpr std::size_t kXstateBv = 512;
constexpr std::size_t kXcompBv = 520;
constexpr std::size_t kHeaderReserved = 528;
constexpr std::size_t kHeaderEnd = 576;
constexpr std::size_t kYmmHigh = 576;
constexpr std::size_t kYmmHighSize = 256;

constexpr std::uint64_t kX87 = 1 << 0;
constexpr std::uint64_t kSse = 1 << 1;
constexpr std::uint64_t kAvx = 1 << 2;

constexpr std::uint16_t kInitialFcw = 0x37f;
constexpr std::uint32_t kInitialMxcsr = 0x1f80;
constexpr std::uint32_t kMxcsrBits = 0x2ffff;  // with misaligned SSE

void copy(std::span<std::byte> to, std::span<const std::byte> from, std::size_t at, std::size_t size) {
  std::ranges::copy(from.subspan(at, size), to.begin() + static_cast<std::ptrdiff_t>(at));
}

}  // namespace

FpuState::FpuState() {
  store(&area_[kFcw], kInitialFcw);
  store(&area_[kMxcsr], kInitialMxcsr);
  store(&area_[kMxcsrMask], kMxcsrBits);
}

kvm_fpu FpuState::fpu() const {
  kvm_fpu fpu{};
  std::memcpy(fpu.fpr, &area_[kRegisters], sizeof fpu.fpr);
  fpu.fcw = load<std::uint16_t>(&area_[kFcw]);
  fpu.fsw = load<std::uint16_t>(&area_[kFsw]);
  fpu.ftwx = load<std::uint8_t>(&area_[kFtw]);
  fpu.last_opcode = load<std::uint16_t>(&area_[kFop]);
  fpu.last_ip = load<std::uint64_t>(&area_[kRip]);
  fpu.last_dp = load<std::uint64_t>(&area_[kDp]);
  std::memcpy(fpu.xmm, &area_[kXmm], sizeof fpu.xmm);
  return fpu;
}

void FpuState::set_fpu(const kvm_fpu& fpu) {
  std::memcpy(&area_[kRegisters], fpu.fpr, sizeof fpu.fpr);
  store(&area_[kFcw], fpu.fcw);
  store(&area_[kFsw], fpu.fsw);
  store(&area_[kFtw], fpu.ftwx);
  store(&area_[kFop], fpu.last_opcode);
  store(&area_[kRip], fpu.last_ip);
  store(&area_[kDp], fpu.last_dp);
  std::memcpy(&area_[kXmm], fpu.xmm, sizeof fpu.xmm);
  store(&area_[kXstateBv], load<std::uint64_t>(&area_[kXstateBv]) | kX87 | kSse);
}

bool FpuState::set_xsave(std::span<const std::byte, kXsaveBytes> area) {
  const auto present = load<std::uint64_t>(&area[kXstateBv]);
  if ((present & ~supported_xcr0()) != 0 || load<std::uint64_t>(&area[kXcompBv]) != 0) return false;
  const auto reserved = area.subspan(kHeaderReserved, kHeaderEnd - kHeaderReserved);
  if (std::ranges::any_of(reserved, [](std::byte b) { return b != std::byte{0}; })) return false;
  const auto mxcsr = load<std::uint32_t>(&area[kMxcsr]);
  if ((present & (kSse | kAvx)) != 0 && (mxcsr & ~kMxcsrBits) != 0) return false;
  // What the header does not name keeps its value, but for its bit: the VMSA then takes zeros for AVX.
  if (present & kX87) {
    copy(area_, area, kFcw, kMxcsr - kFcw);
    copy(area_, area, kRegisters, kRegistersSize);
  }
  if (present & kSse) copy(area_, area, kXmm, kXmmSize);
  if (present & (kSse | kAvx)) store(&area_[kMxcsr], mxcsr);
  if (present & kAvx) copy(area_, area, kYmmHigh, kYmmHighSize);
  store(&area_[kXstateBv], present);
  return true;
}

void FpuState::write_to(sev::Vmsa& vmsa) const {
  vmsa.x87_dp = load<std::uint64_t>(&area_[kDp]);
  vmsa.mxcsr = load<std::uint32_t>(&area_[kMxcsr]);
  vmsa.x87_ftw = load<std::uint8_t>(&area_[kFtw]);
  vmsa.x87_fsw = load<std::uint16_t>(&area_[kFsw]);
  vmsa.x87_fcw = load<std::uint16_t>(&area_[kFcw]);
  vmsa.x87_fop = load<std::uint16_t>(&area_[kFop]);
  vmsa.x87_rip = load<std::uint64_t>(&area_[kRip]);
  constexpr std::size_t kMantissa = 8;
  constexpr std::size_t kExponent = 2;
  for (std::size_t i = 0; i < 8; ++i) {
    const std::byte* from = &area_[kRegisters + i * kRegisterSize];
    std::memcpy(vmsa.x87_registers + i * kMantissa, from, kMantissa);
    std::memcpy(vmsa.x87_registers + 8 * kMantissa + i * kExponent, from + kMantissa, kExponent);
  }
  std::memcpy(vmsa.xmm, &area_[kXmm], sizeof vmsa.xmm);
  if (load<std::uint64_t>(&area_[kXstateBv]) & kAvx) std::memcpy(vmsa.ymm_high, &area_[kYmmHigh], sizeof vmsa.ymm_high);
}

void FpuState::start(sev::Vmsa& vmsa) const {
  FpuState named = *this;
  const FpuState initial;
  const auto present = load<std::uint64_t>(&area_[kXstateBv]);
  if (!(present & kX87)) {
    copy(named.area_, initial.area_, kFcw, kMxcsr - kFcw);
    copy(named.area_, initial.area_, kRegisters, kRegistersSize);
  }
  if (!(present & kSse)) copy(named.area_, initial.area_, kXmm, kXmmSize);
  if (!(present & (kSse | kAvx))) copy(named.area_, initial.area_, kMxcsr, kMxcsrMask - kMxcsr);
  std::memset(vmsa.ymm_high, 0, sizeof vmsa.ymm_high);
  named.write_to(vmsa);
}

void FpuState::adopt(const sev::Vmsa& vmsa) {
  store(&area_[kFcw], vmsa.x87_fcw);
  store(&area_[kFsw], vmsa.x87_fsw);
  store(&area_[kFtw], static_cast<std::uint8_t>(vmsa.x87_ftw));
  store(&area_[kFop], vmsa.x87_fop);
  store(&area_[kRip], vmsa.x87_rip);
  store(&area_[kDp], vmsa.x87_dp);
  store(&area_[kMxcsr], vmsa.mxcsr);
  constexpr std::size_t kMantissa = 8;
  constexpr std::size_t kExponent = 2;
  for (std::size_t i = 0; i < 8; ++i) {
    std::byte* to = &area_[kRegisters + i * kRegisterSize];
    std::memcpy(to, vmsa.x87_registers + i * kMantissa, kMantissa);
    std::memcpy(to + kMantissa, vmsa.x87_registers + 8 * kMantissa + i * kExponent, kExponent);
  }
  std::memcpy(&area_[kXmm], vmsa.xmm, sizeof vmsa.xmm);
  std::memcpy(&area_[kYmmHigh], vmsa.ymm_high, sizeof vmsa.ymm_high);
  store(&area_[kXstateBv], kX87 | kSse | (supported_xcr0() & kAvx));
}

}  // namespace sevisor::emulator
