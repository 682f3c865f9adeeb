#include "firmware/mtrr.hpp"

#include <cstdint>

#include "firmware/cpu.hpp"

namespace sevisor::firmware {

namespace {
constexpr std::uint32_t kMsrMtrrCap = 0x0fe;
constexpr std::uint32_t kMsrPhysBase0 = 0x200;
constexpr std::uint32_t kMsrPhysMask0 = 0x201;
constexpr std::uint32_t kMsrDefType = 0x2ff;
constexpr std::uint32_t kCpuidEdxMtrr = 1 << 12;
constexpr std::uint64_t kVariableCountMask = 0xff;
constexpr std::uint64_t kEnable = 1 << 11;
constexpr std::uint64_t kValid = 1 << 11;
constexpr std::uint64_t kWriteBack = 6;
constexpr std::uint64_t kUncached = 0;
constexpr std::uint64_t kDeviceBase = 0xc0000000;
constexpr std::uint64_t kDeviceBytes = 0x40000000;
}  // namespace

MemoryTypes set_memory_types() noexcept {
  MemoryTypes types;
  std::uint64_t capabilities = 0;
  if ((cpuid(1).edx & kCpuidEdxMtrr) == 0 || !read_msr_or_fault(kMsrMtrrCap, &capabilities)) return types;
  if ((capabilities & kVariableCountMask) != 0) {
    unsigned physical_bits = 36;
    if (cpuid(0x80000000).eax >= 0x80000008) physical_bits = cpuid(0x80000008).eax & 0xff;
    if (physical_bits < 36 || physical_bits > 52) physical_bits = 36;
    const std::uint64_t mask = ((std::uint64_t{1} << physical_bits) - 1) & ~(kDeviceBytes - 1);
    types.add({kMsrPhysBase0, kDeviceBase | kUncached});
    types.add({kMsrPhysMask0, mask | kValid});
  }
  types.add({kMsrDefType, kEnable | kWriteBack});
  for (std::size_t i = 0; i < types.count; ++i) {
    // A refusal leaves the reset value; then Linux says that MTRRs are off and goes on.
    if (!write_msr_or_fault(types.writes[i].msr, types.writes[i].value)) return {};
  }
  return types;
}

}  // namespace sevisor::firmware
