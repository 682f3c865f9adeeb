#include "firmware/mtrr.hpp"

#include "firmware/cpu.hpp"

namespace sevisor::firmware {

namespace {
constexpr std::uint32_t kMsrMtrrCap = 0x0fe;
constexpr std::uint32_t kMsrDefType = 0x2ff;
constexpr std::uint32_t kCpuidEdxMtrr = 1 << 12;
constexpr std::uint64_t kEnable = 1 << 11;
constexpr std::uint64_t kWriteBack = 6;
}  // namespace

std::optional<MsrWrite> set_memory_types() noexcept {
  std::uint64_t capabilities = 0;
  if ((cpuid(1).edx & kCpuidEdxMtrr) == 0 || !read_msr_or_fault(kMsrMtrrCap, &capabilities)) return std::nullopt;
  const MsrWrite write{.msr = kMsrDefType, .value = kEnable | kWriteBack};
  if (!write_msr_or_fault(write.msr, write.value)) return std::nullopt;
  return write;
}

}  // namespace sevisor::firmware
