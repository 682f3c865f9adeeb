// KVM_X86_SET_MSR_FILTER: which MSRs a guest may reach. Linux arch/x86/kvm/x86.c kvm_msr_allowed().
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "kvm/abi.hpp"

namespace sevisor::emulator {

class MsrFilter {
 public:
  // Takes the filter's place. 0, or a negative errno and nothing changed.
  [[nodiscard]] int set(const kvm_msr_filter& filter);
  [[nodiscard]] bool allows(std::uint32_t index, bool write) const noexcept;

 private:
  struct Range {
    std::uint32_t flags;  // KVM_MSR_FILTER_READ, KVM_MSR_FILTER_WRITE
    std::uint32_t first;
    std::uint32_t count;
    std::vector<std::byte> allowed;  // one bit an MSR
  };

  bool default_allow_ = true;
  std::vector<Range> ranges_;
};

}  // namespace sevisor::emulator
