#include "firmware/sha_unit.hpp"

#include "firmware/cpu.hpp"
#include "firmware/sha256_ni.hpp"

namespace sevisor::firmware {

namespace {
// APM vol. 3 appendix D: Fn0000_0001 ECX and EDX, Fn0000_0007_0 EBX.
constexpr std::uint32_t kFeatures = 1;
constexpr std::uint32_t kSsse3 = 1 << 9;
constexpr std::uint32_t kSse41 = 1 << 19;
constexpr std::uint32_t kFxsr = 1 << 24;
constexpr std::uint32_t kStructuredFeatures = 7;
constexpr std::uint32_t kSha = 1 << 29;

constexpr std::uint64_t kCr4Osfxsr = 1 << 9;

bool has_sha() noexcept {
  if (cpuid(0).eax < kStructuredFeatures || (cpuid(kStructuredFeatures).ebx & kSha) == 0) return false;
  const CpuidResult features = cpuid(kFeatures);
  return (features.ecx & (kSsse3 | kSse41)) == (kSsse3 | kSse41) && (features.edx & kFxsr) != 0;
}
}  // namespace

ShaUnit::ShaUnit() noexcept : there_(has_sha()) {
  if (there_) write_cr4(read_cr4() | kCr4Osfxsr);
}

ShaUnit::~ShaUnit() {
  if (there_) write_cr4(read_cr4() & ~kCr4Osfxsr);
}

Sha256Digest ShaUnit::hash(std::span<const std::byte> bytes) const noexcept {
  return sha256(bytes, there_ ? sha256_blocks_ni : sha256_blocks);
}

}  // namespace sevisor::firmware
