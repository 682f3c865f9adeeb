// The extensions of the instruction set that depend on the machine the emulator runs on: their instructions execute on
// the host's own vector unit. Everything else that CPUID advertises is there on every host.
#pragma once

#include <cstdint>

namespace sevisor::emulator {

struct HostExtensions {
  bool sse3 = false;
  bool ssse3 = false;
  bool sse41 = false;
  bool sse42 = false;
  bool aes = false;
  bool pclmulqdq = false;
  bool sha = false;
  // Each of these only with `avx`.
  bool avx = false;  // and the host's kernel keeps the YMM registers
  bool avx2 = false;
  bool fma = false;
  bool f16c = false;
  bool vaes = false;
  bool vpclmulqdq = false;
};

// What the guest may be offered. Instructions of an extension that is false raise #UD.
[[nodiscard]] const HostExtensions& host_extensions() noexcept;

// XCR0 (APM vol. 2, 11.5.2): the components that exist here, and whether XSETBV takes a value.
[[nodiscard]] std::uint64_t supported_xcr0() noexcept;
[[nodiscard]] bool valid_xcr0(std::uint64_t value) noexcept;

}  // namespace sevisor::emulator
