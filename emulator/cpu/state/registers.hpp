// Architectural state of a processor that is not in the general registers. Names and bits: APM vol. 2.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace sevisor::emulator {

enum SegmentRegister : std::uint8_t { kEs, kCs, kSs, kDs, kFs, kGs, kSegmentCount };

// Attribute bits of a segment in the VMCB's packed form (APM vol. 2 appendix B).
inline constexpr std::uint16_t kSegType = 0x00f;
inline constexpr std::uint16_t kSegS = 0x010;
inline constexpr std::uint16_t kSegDpl = 0x060;
inline constexpr std::uint16_t kSegPresent = 0x080;
inline constexpr std::uint16_t kSegAvl = 0x100;
inline constexpr std::uint16_t kSegLong = 0x200;
inline constexpr std::uint16_t kSegDefault = 0x400;
inline constexpr std::uint16_t kSegGranularity = 0x800;

// Hidden part of a segment register. The base of ES..GS lies in Core::gpr[kRegSegmentBase + n] instead.
struct Segment {
  std::uint16_t selector = 0;
  std::uint16_t attributes = 0;
  std::uint32_t limit = 0;  // in bytes, granularity applied
};
// LDTR, TR; GDTR and IDTR with selector and attributes 0.
struct SystemSegment : Segment {
  std::uint64_t base = 0;
};

// CR0
inline constexpr std::uint64_t kCr0Pe = 1U << 0;
inline constexpr std::uint64_t kCr0Mp = 1U << 1;
inline constexpr std::uint64_t kCr0Em = 1U << 2;
inline constexpr std::uint64_t kCr0Ts = 1U << 3;
inline constexpr std::uint64_t kCr0Et = 1U << 4;
inline constexpr std::uint64_t kCr0Ne = 1U << 5;
inline constexpr std::uint64_t kCr0Wp = 1U << 16;
inline constexpr std::uint64_t kCr0Am = 1U << 18;
inline constexpr std::uint64_t kCr0Nw = 1U << 29;
inline constexpr std::uint64_t kCr0Cd = 1U << 30;
inline constexpr std::uint64_t kCr0Pg = 1U << 31;
// CR4
inline constexpr std::uint64_t kCr4Vme = 1U << 0;
inline constexpr std::uint64_t kCr4Tsd = 1U << 2;
inline constexpr std::uint64_t kCr4De = 1U << 3;
inline constexpr std::uint64_t kCr4Pse = 1U << 4;
inline constexpr std::uint64_t kCr4Pae = 1U << 5;
inline constexpr std::uint64_t kCr4Mce = 1U << 6;
inline constexpr std::uint64_t kCr4Pge = 1U << 7;
inline constexpr std::uint64_t kCr4Pce = 1U << 8;
inline constexpr std::uint64_t kCr4Osfxsr = 1U << 9;
inline constexpr std::uint64_t kCr4Osxmmexcpt = 1U << 10;
inline constexpr std::uint64_t kCr4Umip = 1U << 11;
inline constexpr std::uint64_t kCr4Fsgsbase = 1U << 16;
inline constexpr std::uint64_t kCr4Pcide = 1U << 17;
inline constexpr std::uint64_t kCr4Osxsave = 1U << 18;
inline constexpr std::uint64_t kCr4Smep = 1U << 20;
inline constexpr std::uint64_t kCr4Smap = 1U << 21;
// EFER
inline constexpr std::uint64_t kEferSce = 1U << 0;
inline constexpr std::uint64_t kEferLme = 1U << 8;
inline constexpr std::uint64_t kEferLma = 1U << 10;
inline constexpr std::uint64_t kEferNxe = 1U << 11;
inline constexpr std::uint64_t kEferSvme = 1U << 12;
inline constexpr std::uint64_t kEferFfxsr = 1U << 14;

// XCR0 (APM vol. 2, 11.5.2)
inline constexpr std::uint64_t kXcr0X87 = 1;
inline constexpr std::uint64_t kXcr0Sse = 2;
inline constexpr std::uint64_t kXcr0Avx = 4;
inline constexpr std::uint64_t kXcr0Ymm = kXcr0Sse | kXcr0Avx;  // what AVX instructions want

// Exception vectors (APM vol. 2 table 8-1).
enum Vector : std::uint8_t {
  kVectorDe = 0,
  kVectorDb = 1,
  kVectorNmi = 2,
  kVectorBp = 3,
  kVectorOf = 4,
  kVectorBr = 5,
  kVectorUd = 6,
  kVectorNm = 7,
  kVectorDf = 8,
  kVectorTs = 10,
  kVectorNp = 11,
  kVectorSs = 12,
  kVectorGp = 13,
  kVectorPf = 14,
  kVectorMf = 16,
  kVectorAc = 17,
  kVectorMc = 18,
  kVectorXf = 19,
  kVectorVc = 29,
};

// MSRs that live in the VMSA and are never intercepted.
struct ModelRegisters {
  std::uint64_t star = 0, lstar = 0, cstar = 0, sfmask = 0;
  std::uint64_t kernel_gs_base = 0;
  std::uint64_t sysenter_cs = 0, sysenter_esp = 0, sysenter_eip = 0;
  std::uint64_t pat = 0x0007040600070406;
  std::uint64_t tsc_aux = 0;
  std::uint64_t xss = 0;
  std::uint64_t debug_control = 0;
  std::uint64_t spec_ctrl = 0;
};

// x87, MMX, SSE, AVX. `x87` is an FXSAVE64 image (APM vol. 2, 11.5.5) whose MXCSR and XMM fields mean nothing. While
// `host_x87`, the host's registers are newer than its FSW, tags and registers. Its offsets: host_unit.hpp.
struct VectorState {
  alignas(64) std::array<std::array<std::byte, 32>, 16> ymm{};  // XMM n is the low half
  alignas(64) std::array<std::byte, 512> x87 = [] {
    std::array<std::byte, 512> image{};
    image[0] = std::byte{0x40};  // FCW 0x0040 after reset
    return image;
  }();
  std::uint32_t mxcsr = 0x1f80;
  std::uint32_t host_mxcsr = 0;  // what the host's is set to for the guest, 0 if it is the host's own: host_unit.hpp
  bool host_x87 = false;         // the host's x87 registers are the guest's
  std::uint16_t x87_cs = 0;      // selectors of the last x87 instruction and its operand
  std::uint16_t x87_ds = 0;
  std::uint64_t xcr0 = 1;
  std::uint32_t pkru = 0;
  // Memory operand of an instruction that runs in host code, when it cannot use the guest's page itself.
  alignas(64) std::array<std::byte, 128> operand{};
};

}  // namespace sevisor::emulator
