#include "emulator/cpu/state/features.hpp"

#include <cpuid.h>

#include "emulator/cpu/state/registers.hpp"

namespace sevisor::emulator {

namespace {

struct Leaf {
  std::uint32_t eax = 0, ebx = 0, ecx = 0, edx = 0;
};
Leaf leaf(std::uint32_t number) {
  Leaf l;
  if (__get_cpuid_count(number, 0, &l.eax, &l.ebx, &l.ecx, &l.edx) == 0) return {};
  return l;
}
bool bit(std::uint32_t value, unsigned number) { return (value >> number & 1) != 0; }

bool kernel_keeps_ymm(std::uint32_t leaf1_ecx) {
  constexpr unsigned kOsxsave = 27;
  constexpr std::uint32_t kSseAndAvx = 6;
  if (!bit(leaf1_ecx, kOsxsave)) return false;
  std::uint32_t low = 0;
  std::uint32_t high = 0;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (low & kSseAndAvx) == kSseAndAvx;
}

// Bit numbers: AMD APM vol. 3 appendix E.3 (Fn0000_0001_ECX, Fn0000_0007_EBX, Fn0000_0007_ECX).
HostExtensions detect() {
  const Leaf l1 = leaf(1);
  const Leaf l7 = leaf(7);
  HostExtensions e;
  e.sse3 = bit(l1.ecx, 0);
  e.ssse3 = bit(l1.ecx, 9);
  e.sse41 = bit(l1.ecx, 19);
  e.sse42 = bit(l1.ecx, 20);
  e.aes = bit(l1.ecx, 25);
  e.pclmulqdq = bit(l1.ecx, 1);
  e.sha = bit(l7.ebx, 29);
  e.avx = bit(l1.ecx, 28) && kernel_keeps_ymm(l1.ecx);
  e.avx2 = e.avx && bit(l7.ebx, 5);
  e.fma = e.avx && bit(l1.ecx, 12);
  e.f16c = e.avx && bit(l1.ecx, 29);
  e.vaes = e.avx && bit(l7.ecx, 9);
  e.vpclmulqdq = e.avx && bit(l7.ecx, 10);
  return e;
}

}  // namespace

const HostExtensions& host_extensions() noexcept {
  static const HostExtensions extensions = detect();
  return extensions;
}

std::uint64_t supported_xcr0() noexcept { return kXcr0X87 | kXcr0Sse | (host_extensions().avx ? kXcr0Avx : 0); }

bool valid_xcr0(std::uint64_t value) noexcept {
  const bool known = (value & ~supported_xcr0()) == 0 && (value & kXcr0X87) != 0;
  return known && (value & kXcr0Ymm) != kXcr0Avx;
}

}  // namespace sevisor::emulator
